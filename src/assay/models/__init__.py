"""Networks, the ways to name one, and what one consists of.

:func:`load_model` builds a network from a name, :func:`open_model` also returns what is known of it and notes for the
user; each way to name one is a row of a table in :mod:`assay.models.sources`. Every network takes images in [0, 1]:
normalisation is its first layer.
"""

from assay.models.anatomy import measure_anatomy
from assay.models.objects import as_model
from assay.models.sources import LoadedModel, load_model, open_model
from assay.models.wrappers import Normalize, Normalized

__all__ = ["LoadedModel", "Normalize", "Normalized", "as_model", "load_model", "measure_anatomy", "open_model"]
