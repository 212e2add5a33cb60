"""``assay factor``: the best factorisation of a matrix, with the proof, and a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import inputs as arg
from assay.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from assay.lowrank.factors import Factorization
    from assay.lowrank.matrix import Matrix

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
DEFAULT_ENERGY = 0.9


def factor(
    matrix: Annotated[
        Path | None,
        typer.Argument(
            metavar="X", help=".npy, .parquet, .npz, .csv, .mtx, .pt, .safetensors, or a picture.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="With --sample: a picture of this data set instead of X.", show_default=False)
    ] = None,
    sample: Annotated[str | None, typer.Option(help="With --data: its id or name.", show_default=False)] = None,
    rank: Annotated[
        str | None, typer.Option(help="A number, or gavish-donoho. [default: 90 % of the energy]", show_default=False)
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="The smallest rank with this relative error.", show_default=False)
    ] = None,
    energy: Annotated[
        float | None, typer.Option(help="The smallest rank that keeps this share of ‖X‖².", show_default=False)
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Standard deviation of the noise, for gavish-donoho.", show_default=False)
    ] = None,
    method: Annotated[
        str, typer.Option(help="auto, fastest, exact, gram, krylov, single-pass, als or descent.")
    ] = "auto",
    ridge: Annotated[float, typer.Option(help="λ of λ(‖A‖² + ‖B‖²), the nuclear norm.")] = 0.0,
    assurance: Annotated[str, typer.Option(help="auto, strict (deterministic bounds at any cost), or none.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Write A, B and the singular values to this .npz.", show_default=False)
    ] = None,
    report: Annotated[Path | None, typer.Option(help="The page. [default: X.factor.html]", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of the summary.")] = False,
    scale: Annotated[
        list[float] | None,
        typer.Option(help="Also look at the pair (cA, B/c) for this c; may be repeated.", show_default=False),
    ] = None,
    longest: Annotated[
        int | None, typer.Option(min=1, help="Shrink the longer side of a picture to this first.", show_default=False)
    ] = None,
    data_dir: arg.DataDir = None,
    split: arg.Split = "test",
    image_size: arg.ImageSize = None,
    seed: arg.Seed = 0,
) -> None:
    """Factorise X ≈ AB with the least error, prove how good it is, and draw the page.

    A picture is shown at rank 1, 5, 20 and 50 (and at --rank). Exit codes: 0 done, 2 usage or input error.
    """
    from rich.console import Console

    from assay.files import write_atomically
    from assay.lowrank.factorize import factorize
    from assay.lowrank.landscape import landscape
    from assay.lowrank.summary import RANKS, SCALES, describe_factorization, rebuild_picture
    from assay.report.factor_page import render_factor_page
    from assay.report.terminal.lowrank import print_factorization

    _check_places(out, report)
    name, x, picture = _open(
        matrix, data, sample, data_dir=data_dir, split=split, image_size=image_size, longest=longest
    )
    wanted = _rank(rank)
    if wanted is None and tolerance is None and energy is None:
        energy = DEFAULT_ENERGY
    found = factorize(
        x, wanted, tolerance=tolerance, energy=energy, noise=noise, method=method, ridge=ridge,  # type: ignore[arg-type]
        assurance=assurance, seed=seed,  # type: ignore[arg-type]
    )  # fmt: skip
    flat = float(found.spectrum[0]) == 0
    surface = None if flat or ridge else landscape(x, found.rank, seed=seed)
    record = describe_factorization(found, x, source=name, landscape=surface, scales={*SCALES, *(scale or ())})
    if picture is not None:
        record = record.model_copy(update={"pictures": rebuild_picture(picture, ranks=(*RANKS, found.rank))})
    if out is not None:
        _write_factors(out, found)
    page = report or (matrix or Path(name.replace("/", "-"))).with_suffix(".factor.html")
    write_atomically(page, render_factor_page(record))
    if as_json:
        typer.echo(record.model_dump_json())
    else:
        print_factorization(record, Console(), page=page, out=out, scales=scale or ())


def _open(
    matrix: Path | None,
    data: str | None,
    sample: str | None,
    *,
    data_dir: Path | None,
    split: str,
    image_size: int | None,
    longest: int | None,
) -> tuple[str, Matrix, Tensor | None]:
    """What to call it, the matrix, and the channels where it is a picture: of a file, or of a data set."""
    from assay.lowrank.sources import open_matrix
    from assay.lowrank.summary import luma, read_channels

    if (matrix is None) == (data is None) or (data is None) != (sample is None):
        got = " ".join(str(word) for word in (matrix, data, sample) if word is not None)
        raise OptionError("X", expected="a file, or --data and --sample", got=got or "neither")
    if matrix is None:
        from assay.data.dataset import to_unit_range
        from assay.data.sources import load_dataset
        from assay.views.picture import pick_sample

        dataset = load_dataset(data or "", split=split, data_dir=data_dir, image_size=image_size)
        chosen = pick_sample(dataset, sample or "")
        channels = to_unit_range(chosen.image).double()
        return chosen.name, luma(channels), channels
    if matrix.suffix.lower() not in PICTURES or not matrix.is_file():
        return matrix.name, open_matrix(matrix), None
    channels = read_channels(matrix, longest=longest)
    return matrix.name, luma(channels), channels


def _rank(text: str | None) -> int | str | None:
    if text is None or text == "gavish-donoho":
        return text
    try:
        return int(text)
    except ValueError:
        raise OptionError("--rank", expected="a number or gavish-donoho", got=repr(text)) from None


def _check_places(out: Path | None, report: Path | None) -> None:
    """Refuse what cannot be written before any work is done."""
    if out is not None and out.suffix != ".npz":
        raise OptionError("--out", expected="a file ending in .npz", got=out)
    for name, path in (("--out", out), ("--report", report)):
        if path is not None and not path.resolve().parent.is_dir():
            raise OptionError(name, expected="a file in a folder that exists", got=path)


def _write_factors(path: Path, found: Factorization) -> None:
    import io

    import numpy as np

    from assay.files import write_atomically

    buffer = io.BytesIO()
    np.savez(buffer, A=found.A.numpy(), B=found.B.numpy(), singular_values=found.singular_values.numpy())
    write_atomically(path, buffer.getvalue())
