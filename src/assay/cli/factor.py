"""``assay factor``: the best factorisation of a matrix, with the proof, and a page to look at."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import OF_THE_MODEL, AsJson, Inputs, argument, option, takes_inputs
from assay.errors import DataError, OptionError, UnusedOptionError

if TYPE_CHECKING:
    from torch import Tensor

    from assay.lowrank.factors import Factorization
    from assay.lowrank.matrix import Matrix

DEFAULT_ENERGY = 0.9


@takes_inputs(
    omit=(*OF_THE_MODEL, "limit", "device"),
    helps={"data": "With --sample: a picture of this data set instead of X."},
)
def factor(
    inputs: Inputs,
    matrix: Annotated[
        Path | None, argument(".npy, .parquet, .npz, .csv, .mtx, .pt, .safetensors, or a picture.", metavar="X")
    ] = None,
    sample: Annotated[str | None, option("Data", "With --data: its id or name.", metavar="ID")] = None,
    longest: Annotated[
        int | None, option("Data", "Shrink the longer side of a picture to this first.", metavar="PIXELS", min=1)
    ] = None,
    rank: Annotated[
        str | None, option("Rank", "A number, or gavish-donoho. (default: 90 % of the energy)", metavar="R")
    ] = None,
    tolerance: Annotated[
        float | None, option("Rank", "The smallest rank with this relative error.", metavar="FRACTION")
    ] = None,
    energy: Annotated[
        float | None, option("Rank", "The smallest rank that keeps this share of ‖X‖².", metavar="FRACTION")
    ] = None,
    noise: Annotated[
        float | None, option("Rank", "Standard deviation of the noise, for gavish-donoho.", metavar="SIGMA")
    ] = None,
    method: Annotated[
        str, option("Method", "auto, fastest, exact, gram, krylov, single-pass, als or descent.", metavar="NAME")
    ] = "auto",
    ridge: Annotated[float, option("Method", "λ of λ(‖A‖² + ‖B‖²), the nuclear norm.", metavar="LAMBDA")] = 0.0,
    assurance: Annotated[
        str, option("Method", "auto, strict (deterministic bounds at any cost), or none.", metavar="LEVEL")
    ] = "auto",
    scale: Annotated[
        list[float] | None,
        option("Method", "Also measure the pair (cA, B/c) for this c; may be repeated.", metavar="C"),
    ] = None,
    out: Annotated[
        Path | None, option("Output", "Write A, B and the singular values to this .npz.", metavar="FILE")
    ] = None,
    report: Annotated[Path | None, option("Output", "The page. (default: X.factor.html)", metavar="FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Factorise X ≈ AB with the least error, prove how good it is, and draw the page.

    A picture is shown at rank 1, 5, 20 and 50 (and at --rank). Exit codes: 0 done, 1 the factors do not
    keep what --rank, --tolerance or --energy asked for, 2 usage or input error.
    """
    from rich.console import Console

    from assay.files import write_atomically
    from assay.lowrank.factorization import factorize
    from assay.lowrank.landscape import measure_landscape
    from assay.lowrank.summary import RANKS, SCALES, describe_factorization, rebuild_picture
    from assay.report.factor_page import render_factor_page
    from assay.report.terminal.lowrank import print_factorization

    _check_places(out, report)
    name, x, picture = _open(matrix, inputs, sample, longest=longest)
    seed = inputs.seed
    wanted = _rank(rank)
    if wanted is None and tolerance is None and energy is None:
        energy = DEFAULT_ENERGY
    factorization = factorize(
        x, wanted, tolerance=tolerance, energy=energy, noise=noise, method=method, ridge=ridge,  # type: ignore[arg-type]
        assurance=assurance, seed=seed,  # type: ignore[arg-type]
    )  # fmt: skip
    largest = float(factorization.spectrum[0])
    flat = largest == 0
    if not flat and not 1e-150 < factorization.certificate.energy < 1e150:
        expected = "entries whose squares stay in range: scale X"
        raise DataError(name, expected=expected, got=f"a largest singular value of {largest:.3g}")
    if scale and (flat or ridge):
        reason = "the matrix is zero" if flat else "with --ridge the balanced pair alone is optimal"
        raise UnusedOptionError("--scale", reason=reason)
    surface = None if flat or ridge else measure_landscape(x, factorization.rank, seed=seed)
    record = describe_factorization(factorization, x, source=name, landscape=surface, scales={*SCALES, *(scale or ())})
    if picture is not None:
        record = record.model_copy(update={"pictures": rebuild_picture(picture, ranks=(*RANKS, factorization.rank))})
    if out is not None:
        _write_factors(out, factorization)
    page = report or (matrix or Path(name.replace("/", "-"))).with_suffix(".factor.html")
    write_atomically(page, render_factor_page(record))
    if as_json:
        typer.echo(record.model_dump_json())
    else:
        print_factorization(record, Console(), page=page, out=out, scales=scale or ())
    if record.missed:
        raise typer.Exit(1)


def _open(
    matrix: Path | None, inputs: Inputs, sample: str | None, *, longest: int | None
) -> tuple[str, Matrix, Tensor | None]:
    """Name, matrix, and the channels where it is a picture: of a file, or of a data set."""
    from rich.console import Console

    from assay.cli.inputs import open_data, print_notes
    from assay.data.decoding import SUFFIXES
    from assay.lowrank.sources import open_matrix
    from assay.lowrank.summary import luma, read_channels

    if (matrix is None) == (inputs.data is None) or (inputs.data is None) != (sample is None):
        got = " ".join(str(word) for word in (matrix, inputs.data, sample) if word is not None)
        raise OptionError("X", expected="a file, or --data and --sample", got=got or "neither")
    picture = matrix is not None and matrix.suffix.lower() in SUFFIXES
    if longest is not None and not picture:
        raise UnusedOptionError("--longest", reason="only a picture in a file is made smaller")
    if matrix is not None:
        for field in fields(inputs):
            if field.name != "seed" and getattr(inputs, field.name) != field.default:
                raise UnusedOptionError(f"--{field.name.replace('_', '-')}", reason="X is a file, not --data")
    if matrix is None:
        from assay.data.dataset import to_unit_range
        from assay.views.picture import pick_sample

        chosen = pick_sample(open_data(inputs, Console(stderr=True)), sample or "")
        channels = to_unit_range(chosen.image).double()
        return chosen.name, luma(channels), channels
    if not picture or not matrix.is_file():
        return matrix.name, open_matrix(matrix), None
    notes: list[str] = []
    channels = read_channels(matrix, longest=longest, notes=notes)
    print_notes(notes, Console(stderr=True))
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


def _write_factors(path: Path, factorization: Factorization) -> None:
    import io

    import numpy as np

    from assay.files import write_atomically

    buffer = io.BytesIO()
    np.savez(
        buffer,
        A=factorization.A.numpy(),
        B=factorization.B.numpy(),
        singular_values=factorization.singular_values.numpy(),
    )
    write_atomically(path, buffer.getvalue())
