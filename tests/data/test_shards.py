"""A set read in shards: each sample decoded once, in one of them, with the ids and classes of the whole set."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assay.data import load_dataset, pictures
from assay.data.selection import fair_sample, sample_of_whole
from assay.data.sources import idx, npz, webdataset
from assay.data.sources import parquet as parquet_source
from assay.errors import OptionError

N = 40
SPECS = ("folder", "a.parquet", "a.csv", "x-{0..3}.tar", "a.npz", "idx")


@pytest.mark.parametrize("limit", [None, 17])
@pytest.mark.parametrize("spec", SPECS)
def test_the_shards_are_the_whole_set_each_id_once(stored: Path, spec: str, limit: int | None) -> None:
    whole = load_dataset(str(stored / spec), limit=limit)
    shards = [load_dataset(str(stored / spec), limit=limit, shard=(index, 3)) for index in range(3)]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert sorted(torch.cat([each.ids for each in shards]).tolist()) == sorted(whole.ids.tolist())
    for shard in shards:
        expected = whole.arranged(shard.ids)
        assert torch.equal(shard.images, expected.images)
        assert torch.equal(shard.labels, expected.labels)
        assert (shard.classes, shard.filenames, shard.split) == (whole.classes, expected.filenames, whole.split)
        assert {key: list(values) for key, values in shard.metadata.items()} == {
            key: list(values) for key, values in expected.metadata.items()
        }
        assert shard.part is not None
        assert shard.part.ids.tolist() == whole.ids.tolist()
    assert len({shard.part.digest for shard in shards if shard.part is not None}) == 1


@pytest.mark.parametrize("spec", ["folder", "a.parquet", "a.csv", "x-{0..3}.tar"])
def test_a_shard_decodes_its_own_pictures_only(stored: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []

    def count(content: bytes | Path | None, **options: object) -> object:
        decoded.append(content)
        return original(content, **options)  # type: ignore[arg-type]

    original = pictures.decode_picture
    monkeypatch.setattr(pictures, "decode_picture", count)
    shard = load_dataset(str(stored / spec), shard=(1, 4))
    assert len(shard) == len(decoded) == N // 4


def test_only_the_row_groups_of_a_shard_are_read(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []

    class Counting(pq.ParquetFile):
        def iter_batches(self, *args: object, row_groups: list[int], **options: object) -> object:
            groups.extend(row_groups)
            return super().iter_batches(*args, row_groups=row_groups, **options)

    monkeypatch.setattr(parquet_source.pq, "ParquetFile", Counting)
    load_dataset(stored / "a.parquet", shard=(1, 5))
    assert groups == [2, 3]


def test_only_the_archives_of_a_shard_are_opened_for_pictures(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = webdataset._content

    def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        if member.name.endswith("png"):
            opened.append(Path(str(archive.name)).name)
        return original(archive, member)

    monkeypatch.setattr(webdataset, "_content", read)
    load_dataset(str(stored / "x-{0..3}.tar"), shard=(2, 4))
    assert set(opened) == {"x-2.tar"}


def test_large_arrays_are_mapped(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (npz, idx):
        monkeypatch.setattr(module, "MAPPED", 1)
    mapped: list[object] = []
    original = np.memmap

    def count(*args: object, **options: object) -> object:
        mapped.append(args[0])
        return original(*args, **options)  # type: ignore[call-overload]

    for spec in ("a.npz", "idx"):
        whole = load_dataset(stored / spec)
        monkeypatch.setattr(np, "memmap", count)
        shard = load_dataset(stored / spec, shard=(1, 2))
        monkeypatch.setattr(np, "memmap", original)
        assert torch.equal(shard.images, whole.arranged(shard.ids).images)
    assert [Path(str(path)).name for path in mapped] == ["a.npz", "a.npz", "t-labels-idx1-ubyte", "t-images-idx3-ubyte"]


def test_a_changed_byte_in_a_mapped_array_is_noticed(stored: Path, tmp_path: Path) -> None:
    large = tmp_path / "a.npz"
    np.savez(large, images=np.full((200, 80, 80), 99, np.uint8), labels=np.arange(200) % 2)
    content = bytearray(large.read_bytes())
    content[len(content) // 2] ^= 1
    large.write_bytes(bytes(content))
    with pytest.raises(Exception, match="Bad CRC-32"):
        load_dataset(large)


def test_a_sample_of_the_whole_set_is_that_of_one_process(stored: Path) -> None:
    for spec in ("folder", "a.parquet"):
        whole, shard = load_dataset(stored / spec), load_dataset(stored / spec, shard=(1, 2))
        for n in (7, N, None):
            expected, sample = whole if n is None else fair_sample(whole, n), sample_of_whole(shard, n)
            assert torch.equal(sample.images, expected.images)
            assert torch.equal(sample.ids, expected.ids)
        assert sample_of_whole(whole, 7).ids.tolist() == fair_sample(whole, 7).ids.tolist()


def test_pixels_whose_scale_follows_from_the_whole_set_are_read_whole(tmp_path: Path) -> None:
    for place in range(6):
        folder = tmp_path / "ab"[place % 2]
        folder.mkdir(exist_ok=True)
        pixels = np.full((4, 4), 100 if place < 5 else 4000, np.uint16)  # of 12 bits, which one picture alone tells
        Image.fromarray(pixels).save(folder / f"{place}.png")
    whole = load_dataset(tmp_path)
    shards = [load_dataset(tmp_path, shard=(index, 3)) for index in range(3)]
    assert sorted(place for shard in shards for place in shard.ids.tolist()) == list(range(6))
    for shard in shards:
        assert torch.equal(shard.images, whole.arranged(shard.ids).images)
        assert "every shard reads all pixels, since their scale follows from all of them" in shard.notes[-1]


def test_more_shards_than_samples_and_shards_that_are_none_are_refused(stored: Path) -> None:
    with pytest.raises(OptionError, match="shard: expected at most 40 shards, one a sample, got 41"):
        load_dataset(stored / "a.parquet", shard=(0, 41))
    with pytest.raises(OptionError, match="shard: expected i/n with 0 <= i < n, got 3/3"):
        load_dataset(stored / "a.parquet", shard=(3, 3))


def test_a_shard_alone_is_everything(stored: Path) -> None:
    data = load_dataset("digits", shard=(0, 1))
    assert torch.equal(data.images, load_dataset("digits").images)
    half = load_dataset("digits", shard=(1, 2))
    assert half.part is not None
    assert half.part.n == len(data)
    assert half.subset(torch.arange(3)).part is None
    assert half.ids.tolist() == data.ids[1::2].tolist()


@pytest.fixture(params=["folder", "a.parquet", "a.csv", "x-0.tar"])
def of_one_colour(
    request: pytest.FixtureRequest, tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> Path:
    """Eleven grey pictures and one in colour, the first."""
    encoded = [make_png(place, mode="L" if place else "RGB") for place in range(12)]
    for place, content in enumerate(encoded):
        (tmp_path / "folder" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "ab"[place % 2] / f"{place:02}.png").write_bytes(content)
    write_parquet(tmp_path / "a.parquet", encoded, [place % 2 for place in range(12)])
    rows = [f"folder/{'ab'[place % 2]}/{place:02}.png,{'ab'[place % 2]}" for place in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    with tarfile.open(tmp_path / "x-0.tar", "w") as archive:
        for place, content in enumerate(encoded):
            for ending, text in (("png", content), ("cls", b"01"[place % 2 : place % 2 + 1])):
                member = tarfile.TarInfo(f"{place:02}.{ending}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
    return tmp_path / str(request.param)


def test_a_shard_of_grey_pictures_is_in_colour_where_the_set_is(of_one_colour: Path) -> None:
    whole = load_dataset(of_one_colour)
    for index in range(3):
        shard = load_dataset(of_one_colour, shard=(index, 3))
        assert torch.equal(shard.images, whole.arranged(shard.ids).images)
