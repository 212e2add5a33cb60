"""Is a data set what its numbers rest on: duplicates and leaks, odd pictures, contradictory labels."""

from assay.quality.duplicates import find_duplicates
from assay.quality.related import split_accuracy
from assay.quality.survey import survey_pictures

__all__ = ["find_duplicates", "split_accuracy", "survey_pictures"]
