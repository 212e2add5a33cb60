"""Model and data of the verbs that look at single pictures; without a model, one is trained on the digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli.preparing import data_of, prepare
from assay.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from assay.app.subject import Subject


def open_subject(
    model: str | None,
    *,
    weights: Path | None,
    data: str | None,
    data_dir: Path | None,
    split: str,
    limit: int | None,
    normalization: str | None,
    image_size: int | None,
    max_bad: int,
    device: str,
    console: Console,
) -> Subject:
    """Load both; ``words`` of the result are the options that were given, so that a printed command finds them again.

    Raises :class:`OptionError` for other data than the digits without a model, and what loading raises.
    """
    from assay.app.subject import Subject

    if model is None and data not in {None, "digits"}:
        raise OptionError("MODEL", expected=f"a model for {data}", got="none (only the digits need none)")
    if model is None and weights is not None:
        raise OptionError("MODEL", expected="an architecture for the weights", got="none")
    source = data or data_of(model)
    dataset, network, _ = prepare(
        model,
        weights=weights,
        data=source,
        data_dir=data_dir,
        split=split,
        limit=limit,
        normalization=normalization,
        image_size=image_size,
        max_bad=max_bad,
        seed=0,
        device=device,
        console=console,
    )
    options = {
        "--weights": weights,
        "--data": source,
        "--data-dir": data_dir,
        "--split": None if split == "test" else split,
        "--image-size": image_size,
        "--normalization": normalization,
    }
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    named = () if model is None else (model,)
    return Subject(network, dataset, name=model or "speednet trained on digits", words=(*named, *words))
