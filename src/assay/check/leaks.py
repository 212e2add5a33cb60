"""Which images of a check are in the training images too, and the accuracy without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import torch

from assay.data.dataset import ImageDataset
from assay.quality import find_duplicates, split_accuracy
from assay.records.accuracy import CleanAccuracy
from assay.records.attack import RobustAccuracy
from assay.records.base import Record
from assay.records.samples import read_runs
from assay.runtime.processes import Processes


def measure_leaks(
    dataset: ImageDataset, against: ImageDataset, records: Iterable[Record], *, processes: Processes
) -> Iterator[Record]:
    """The duplicates of ``dataset`` in ``against``, and each accuracy of ``records`` with and without them.

    Of an accuracy that did not keep which samples were right there is none.
    """
    duplicates = find_duplicates(dataset, against, processes=processes)
    yield duplicates
    related = set(dataset.ids[torch.tensor(duplicates.related, dtype=torch.int64)].tolist())
    for record in records:
        if isinstance(record, CleanAccuracy | RobustAccuracy) and record.per_sample is not None:
            attack = record.attack if isinstance(record, RobustAccuracy) else ""
            bits = record.per_sample
            with_duplicate = [identity in related for identity in chain.from_iterable(read_runs(bits.samples.ids))]
            yield split_accuracy(bits.unpack(), with_duplicate, against=duplicates.against, attack=attack)
