from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch

from assay.errors import DataError, OptionError
from assay.lowrank import complete, measure_landscape
from assay.lowrank import matrix as matrix_module
from assay.lowrank import streams as streams_module
from assay.lowrank.factorization import factorize
from assay.lowrank.sources import as_matrix, open_matrix


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((300, 40)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_module, "BLOCK_BYTES", 64 * 8 * 40)  # several blocks even of small matrices


def sources(x: np.ndarray, folder: Path) -> dict[str, object]:
    np.save(folder / "c.npy", x)
    np.save(folder / "f.npy", np.asfortranarray(x))
    pq.write_table(pa.table({f"c{i}": x[:, i] for i in range(x.shape[1])}), folder / "x.parquet")
    pq.write_table(pa.table({"row": pa.array(list(x), pa.list_(pa.float32()))}), folder / "lists.parquet")
    sp.save_npz(folder / "s.npz", sp.csr_matrix(x))
    np.savez(folder / "one.npz", x=x)
    np.savetxt(folder / "x.csv", x, delimiter=",", header="a,b", comments="")
    torch.save(torch.from_numpy(x), folder / "x.pt")
    return {
        "npy": folder / "c.npy",
        "fortran": folder / "f.npy",
        "memmap": np.load(folder / "c.npy", mmap_mode="r"),
        "parquet": folder / "x.parquet",
        "lists": folder / "lists.parquet",
        "npz-sparse": folder / "s.npz",
        "npz": str(folder / "one.npz"),
        "csv": folder / "x.csv",
        "pt": folder / "x.pt",
        "csr": sp.csr_matrix(x),
        "coo": sp.coo_array(x),
        "torch-coo": torch.from_numpy(x).to_sparse(),
        "torch-csr": torch.from_numpy(x).to_sparse_csr(),
        "blocks": [x[:100], x[100:130], torch.from_numpy(x[130:])],
        "function": lambda: iter(np.array_split(x, 7)),
        "reversed": x[::-1][::-1],
        "read-only": np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
    }


NAMES = [
    "npy", "fortran", "memmap", "parquet", "lists", "npz-sparse", "npz", "csv", "pt", "csr", "coo", "torch-coo",
    "torch-csr", "blocks", "function", "reversed", "read-only",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["gram", "krylov"])
def test_every_source_gives_the_same_factors(name: str, method: str, x: np.ndarray, tmp_path: Path) -> None:
    source = sources(x, tmp_path)[name]
    found = factorize(source, 4, method=method)
    expected = factorize(x, 4, method="exact")
    assert found.A.shape == (300, 4) and found.B.shape == (4, 40)
    assert torch.allclose(found.product.double(), expected.product.double(), atol=2e-4)
    assert found.certificate.certified
    best = float((np.linalg.svd(x.astype(np.float64), compute_uv=False)[4:] ** 2).sum())
    assert found.certificate.optimum_low <= best <= found.certificate.optimum_high


def test_products_agree_with_dense_ones_in_every_form(x: np.ndarray, tmp_path: Path) -> None:
    dense = torch.from_numpy(x).double()
    v, u = torch.randn(40, 3).double(), torch.randn(300, 3).double()
    for name in ("npy", "parquet", "csr", "function"):
        made = as_matrix(sources(x, tmp_path)[name])
        assert torch.allclose(made.times(v), dense @ v)
        assert torch.allclose(made.transposed_times(u), dense.T @ u)
        assert torch.allclose(made.apply_gram(v), dense.T @ dense @ v)
        assert torch.allclose(made.gram(), dense.T @ dense)
        assert torch.allclose(torch.cat(list(made.blocks())).double(), dense)
        assert made.squared_norm() == pytest.approx(float(dense.square().sum()))


def test_a_sparse_matrix_is_never_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    from assay.lowrank.matrix import Sparse

    def refuse(self: Sparse) -> None:
        raise AssertionError("made dense")

    monkeypatch.setattr(Sparse, "blocks", refuse)
    x = sp.random(20_000, 3_000, density=1e-4, random_state=0, format="csr")
    found = factorize(x, 3, method="krylov", accuracy=1e-5)
    best = float(x.power(2).sum()) - float((sp.linalg.svds(x, 3)[1] ** 2).sum())
    assert found.certificate.optimum_low <= best <= found.certificate.optimum_high


def test_a_truncated_npy_is_told_from_a_whole_one(x: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, x)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="the file is truncated"):
        factorize(path, 2)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet", ".csv", ".mtx", ".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a matrix at all"], ids=["empty", "garbage"])
def test_broken_files_are_one_line_naming_the_file(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"x{suffix}") as caught:
        factorize(path, 1)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing of that name"):
        factorize(tmp_path / "none.npy", 1)
    (tmp_path / "x.txt").write_text("1")
    with pytest.raises(DataError, match="got .txt"):
        factorize(tmp_path / "x.txt", 1)
    np.save(tmp_path / "o.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"o\.npy"):
        factorize(tmp_path / "o.npy", 1)
    np.save(tmp_path / "d3.npy", np.ones((2, 2, 2)))
    with pytest.raises(DataError, match="two dimensions"):
        factorize(tmp_path / "d3.npy", 1)


def test_parquet_faults_name_column_and_row(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1.0, None, 3.0], "b": [1.0, 2.0, 3.0]}), path)
    with pytest.raises(DataError, match="column 'a', row 1: expected a number, got null"):
        factorize(path, 1)
    pq.write_table(pa.table({"a": [1.0], "name": ["x"]}), path)
    with pytest.raises(DataError, match="column 'name': expected numbers, got string"):
        factorize(path, 1)
    pq.write_table(pa.table({"row": [[1.0, 2.0], [1.0]]}), path)
    with pytest.raises(DataError, match="lists of 2"):
        factorize(path, 1)


def test_row_blocks_are_checked() -> None:
    with pytest.raises(DataError, match=r"blocks\[1\]: expected rows of 3 numbers: \(b, 3\), got \(2, 4\)"):
        factorize([np.ones((2, 3)), np.ones((2, 4))], 1)
    with pytest.raises(DataError, match="empty"):
        factorize(iter([]), 1)
    with pytest.raises(DataError, match="real numbers"):
        factorize(iter([np.ones((2, 3), complex)]), 1)
    calls = []

    def shrinking() -> list[np.ndarray]:
        calls.append(1)
        return [np.ones((5 if len(calls) < 2 else 4, 3))]

    with pytest.raises(DataError, match="5 rows, as on the first pass"):
        factorize(shrinking, 1)


def test_a_header_that_ends_in_the_middle_is_no_npy_file(tmp_path: Path) -> None:
    path = tmp_path / "X.npy"
    np.save(path, np.eye(3))
    content = bytearray(path.read_bytes())
    content[content.index(b"}")] = ord("(")  # the dictionary of the header never closes
    path.write_bytes(content)
    with pytest.raises(DataError, match="X.npy: expected a .npy file, got"):
        open_matrix(path)


def test_a_file_read_in_several_parts_is_whole_when_it_is_made_dense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "READ_BYTES", 64 * 8 * 40)  # each part overwrites the buffer of the last
    x = np.random.default_rng(1).standard_normal((300, 40))
    np.save(tmp_path / "x.npy", x)
    assert torch.equal(as_matrix(tmp_path / "x.npy").dense(), torch.from_numpy(x))
    best = float((np.linalg.svd(x, compute_uv=False)[4:] ** 2).sum())
    assert factorize(tmp_path / "x.npy", 4, method="exact").error == pytest.approx(best)
    assert complete(tmp_path / "x.npy", 4).error == pytest.approx(best, rel=1e-3)
    assert measure_landscape(tmp_path / "x.npy", 4).witness[0] == pytest.approx(best)


def test_an_iterator_is_read_once_and_empty_blocks_count_no_rows() -> None:
    x = np.random.default_rng(1).standard_normal((9, 6))
    once = as_matrix(iter([x[:0], x[:4], x[4:4], x[4:]]))
    assert factorize(once, 6).error == pytest.approx(0, abs=1e-12)
    with pytest.raises(DataError, match="row blocks: expected an iterator that has not been read"):
        factorize(once, 2)
    assert factorize(lambda: iter([x[:0], x[:4], x[4:4], x[4:]]), 6).rank == 6


def test_rows_of_one_process_are_not_taken_for_the_whole(x: np.ndarray) -> None:
    part = as_matrix(x)
    part.__class__ = type("Part", (type(part),), {"local_rows": 7})  # as one of several processes sees them
    for method in ("exact", "als", "descent", "single-pass"):
        with pytest.raises(OptionError, match="gram or krylov for rows shared among processes"):
            factorize(part, 2, method=method)
    for measure in (complete, measure_landscape):
        with pytest.raises(DataError, match="a matrix in one process"):
            measure(part, 2)
