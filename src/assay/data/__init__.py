"""Labelled images and sequence tasks: what they are and where they come from.

A classifier is measured on an :class:`ImageDataset`; :func:`load_dataset` makes one from a name, a folder or files.
The format behind each spelling is a row of a table in :mod:`assay.data.sources`.
"""

from assay.data.dataset import ImageDataset
from assay.data.objects import as_dataset
from assay.data.predictions import read_predictions
from assay.data.selection import stratified_split
from assay.data.sequences import SequenceTask, adding_problem, copy_memory, image_rows
from assay.data.sources import load_dataset

__all__ = [
    "ImageDataset",
    "SequenceTask",
    "adding_problem",
    "as_dataset",
    "copy_memory",
    "image_rows",
    "load_dataset",
    "read_predictions",
    "stratified_split",
]
