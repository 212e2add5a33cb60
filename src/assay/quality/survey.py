"""The state of a set's pictures: dark, bright, nearly empty and blurred ones, and how many each class has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from assay.arguments import checked
from assay.data.dataset import ImageDataset
from assay.quality.duplicates import PLAIN
from assay.quality.thumbnails import BLOCK_BYTES
from assay.records.quality import ClassSize, OddPictures, PictureSurvey

DARK, BRIGHT = 20.0, 235.0  # of 255: the mean of such a picture lies beyond
FINE = 0.02  # of the contrast of a picture is at least in the differences of neighbours, where it is sharp
EXAMPLES = 8

# Of grey levels float32 (N, H, W): which are odd
_Test = Callable[[Tensor], Tensor]


@checked
def survey_pictures(dataset: ImageDataset) -> PictureSurvey:
    """Look for pictures that hardly show anything, and count those of each class.

    Args:
        dataset: pictures of any size.

    Returns:
        Counts of dark, bright, nearly empty and blurred pictures with the names of a few, the pictures that could not
        be read, and the number of pictures of each class.

    Raises:
        OptionError: an argument of a wrong type.

    Example:
        >>> import assay
        >>> survey = assay.survey_pictures(assay.load_dataset("digits", limit=50))
        >>> survey.n, sum(each.n for each in survey.classes)
        (50, 50)
    """
    tests: tuple[tuple[str, str, _Test], ...] = (
        ("nearly empty", f"a contrast (standard deviation) below {PLAIN:g} grey levels", _is_empty),
        ("dark", f"a mean below {DARK:g} of 255", lambda grey: grey.mean(dim=(1, 2)) < DARK),
        ("bright", f"a mean above {BRIGHT:g} of 255", lambda grey: grey.mean(dim=(1, 2)) > BRIGHT),
        ("blurred", f"less than {100 * FINE:g} % of the variance between neighbouring pixels", _is_blurred),
    )
    step = max(1, BLOCK_BYTES // (4 * dataset.images[0].numel()))
    columns: list[list[Tensor]] = [[] for _ in tests]
    for images in torch.split(dataset.images, step):
        grey = images.float().mean(dim=1)
        for column, (_, _, test) in zip(columns, tests, strict=True):
            column.append(test(grey))
    marks = [torch.cat(column) for column in columns]
    counts = torch.bincount(dataset.labels, minlength=len(dataset.classes)).tolist()
    return PictureSurvey(
        data=f"{dataset.name} ({dataset.split})",
        n=len(dataset),
        channels=dataset.shape[0],
        height=dataset.shape[1],
        width=dataset.shape[2],
        unreadable=dataset.skipped,
        odd=tuple(
            OddPictures(
                oddity=name,
                meaning=meaning,
                n=int(mark.sum()),
                examples=tuple(dataset.sample_name(place) for place in mark.nonzero()[:EXAMPLES, 0].tolist()),
            )
            for (name, meaning, _), mark in zip(tests, marks, strict=True)
        ),
        n_odd=int(torch.stack(marks).any(dim=0).sum()),
        classes=tuple(ClassSize(name=name, n=n) for name, n in zip(dataset.classes, counts, strict=True)),
    )


def _is_empty(grey: Tensor) -> Tensor:
    return grey.flatten(1).std(dim=1, correction=0) < PLAIN


def _is_blurred(grey: Tensor) -> Tensor:
    """Little of the variance lies between neighbours; a small picture has hardly any that could tell."""
    if min(grey.shape[1:]) < 16:
        return torch.zeros(len(grey), dtype=torch.bool)
    variance = grey.flatten(1).var(dim=1, correction=0)
    down = grey.diff(dim=1).square().mean(dim=(1, 2))
    across = grey.diff(dim=2).square().mean(dim=(1, 2))
    scale = min(1.0, 224 / min(grey.shape[1:]))  # neighbours in a large picture differ less
    return (variance >= PLAIN**2) & ((down + across) / 2 < FINE * scale * variance)
