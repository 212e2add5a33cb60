"""``assay check --apply-fixes``: images to fix with, the progress, and the fixed weights beside the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from assay.check import Budget
    from assay.data.dataset import ImageDataset
    from assay.records.checkup import Checkup

FOLDER = "fixed"


def fix_and_measure_again(
    model: nn.Module,
    dataset: ImageDataset,
    checkup: Checkup,
    *,
    source: str,
    data_dir: Path | None,
    image_size: int | None,
    budget: Budget,
    limit: int | None,
    spec: str | None,
    folder: Path,
    console: Console,
) -> Checkup:
    """The checkup with its fixes in it; the copy with all fixes of weights is written to ``folder/fixed``."""
    from assay.cli.progress import StageProgress
    from assay.compression.run import save_compressed
    from assay.files import make_folder
    from assay.fixes import apply_fixes
    from assay.training.recipes import load_recipe

    train, note = _training_images(source, dataset, data_dir=data_dir, image_size=image_size)
    with StageProgress(console) as progress:
        fixed = apply_fixes(
            model,
            dataset,
            checkup,
            train=train,
            train_note=note,
            budget=budget,
            limit=limit,
            on_fix=lambda name, place, total: progress.show(f"fix: {name}", place, total),
        )
    if fixed.model is None:
        return fixed.checkup
    own = load_recipe("digits")  # what a check trains for itself when it is given no model
    save_compressed(
        make_folder(folder / FOLDER),
        fixed.model,
        fixed.factorization,
        spec=spec or own.model,
        classes=dataset.classes,
        image_shape=dataset.shape,
        options=None if spec else own.model_options,
    )
    return name_weights(fixed.checkup)


def name_weights(checkup: Checkup) -> Checkup:
    """The checkup whose applied fixes of weights name the file that holds them."""
    from assay.records.comparison import AppliedFix

    records = tuple(
        record.model_copy(update={"weights": f"{FOLDER}/model.safetensors"})
        if isinstance(record, AppliedFix) and record.changes == "weights" and not record.refused
        else record
        for record in checkup.records
    )
    return checkup.model_copy(update={"records": records})


def _training_images(
    source: str, dataset: ImageDataset, *, data_dir: Path | None, image_size: int | None
) -> tuple[ImageDataset | None, str]:
    """The training split of ``source``; None, and why, where it cannot be had or does not fit the tested images."""
    from assay.data.sources import load_dataset

    size = image_size or None
    try:
        train = load_dataset(source, split="train", data_dir=data_dir, image_size=size)
    except DataError as error:
        return None, f"no training images ({error}); name them with --fix-data"
    if train.classes != dataset.classes or train.shape != dataset.shape:
        return None, f"the training images of {source} have other classes or another shape; see --fix-data"
    return train, ""
