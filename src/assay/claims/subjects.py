"""The trained network that several claims examine: trained once a run folder, or handed in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from assay.claims.claim import Settings
from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import OptionError
from assay.files import locked, make_folder
from assay.models.sources import open_model
from assay.training.classifier import train_classifier
from assay.training.recipes import load_recipe

RECIPES = {"digits": "digits", "cifar10": "cifar10-fast"}


@dataclass(frozen=True, eq=False)
class Network:
    """A trained ``model``, what to call it, and the test images it is examined on."""

    model: nn.Module
    name: str
    test: ImageDataset


def trained_network(settings: Settings) -> Network:
    """The network of the settings; else one trained by the data's own recipe and kept in the run's folder.

    Claims that run side by side wait for the one that trains. Raises :class:`ModelError` for a model that does not
    fit the data, and :class:`OptionError` for data that there is no recipe for.
    """
    test = settings.test()
    if settings.model is not None:
        opened = open_model(settings.model, weights=settings.weights, classes=len(test.classes), image_shape=test.shape)
        return Network(opened.model.eval(), settings.model, test)
    if settings.data not in RECIPES:
        raise OptionError("data", expected=f"one of {', '.join(RECIPES)}, or a model", got=repr(settings.data))
    recipe = load_recipe(RECIPES[settings.data])
    name = f"{recipe.model} trained on {settings.data}"
    if settings.folder is None:
        return Network(train_classifier(settings.train(), recipe=recipe, seed=settings.seed).model, name, test)
    folder = make_folder(settings.folder / "networks" / f"{recipe.name}-seed{settings.seed}")
    train = settings.train()
    with locked(folder / ".lock"):
        try:
            trained = train_classifier(train, recipe=recipe, seed=settings.seed, out=folder, resume=True)
        except OptionError:  # what is there was trained by another version of the recipe, or is damaged
            trained = train_classifier(train, recipe=recipe, seed=settings.seed, out=folder)
    return Network(trained.model, name, test)


SIDE = 8  # pixels; small enough for the whole Hessian


def picture_matrix(settings: Settings, *, rows: int) -> Tensor:
    """float64 (rows, C·8·8): the first training images, averaged down to 8×8 pixels, in [0, 1]."""
    images = to_unit_range(settings.train().images[:rows])
    return F.adaptive_avg_pool2d(images, SIDE).flatten(1).double()
