"""Model and data of the verbs that look at single pictures; without a model, one is trained on the digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli.preparing import data_of
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
    from assay.data.sources import load_dataset
    from assay.models.loading import open_model
    from assay.runtime import choose_device

    if model is None and data not in {None, "digits"}:
        raise OptionError("MODEL", expected=f"a model for {data}", got="none (only the digits need none)")
    if model is None and weights is not None:
        raise OptionError("MODEL", expected="an architecture for the weights", got="none")
    target = choose_device(device)
    source = data or data_of(model)
    dataset = load_dataset(source, split=split, data_dir=data_dir, limit=limit, max_bad=max_bad, image_size=image_size)
    for line in dataset.skipped:
        console.print(f"skipped: {line}", style="yellow", markup=False)
    options = {
        "--weights": weights,
        "--data": source,
        "--data-dir": data_dir,
        "--split": None if split == "test" else split,
        "--image-size": image_size,
        "--normalization": normalization,
    }
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    if model is None:
        from assay.check.default import train_on_digits
        from assay.cli.progress import TrainingProgress

        with TrainingProgress(console) as progress:
            network, _ = train_on_digits(on_step=progress.step)
        return Subject(network.to(target), dataset, name="speednet trained on digits", words=tuple(words))
    opened = open_model(
        model,
        weights=weights,
        classes=len(dataset.classes),
        image_shape=dataset.shape,
        normalization=normalization,
    )
    for note in opened.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    return Subject(opened.model.to(target), dataset, name=model, words=(model, *words))
