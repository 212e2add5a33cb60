"""Networks that have a name: our architectures, torchvision's and timm's, made to take pixels in [0, 1]."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from assay.errors import DependencyError, ModelError, one_line
from assay.models.architectures import ARCHITECTURES, build, near
from assay.models.sources.blueprint import DEFAULT_SHAPE, Blueprint, ModelRequest, parse_options
from assay.models.wrappers import Normalize, Normalized, choose_normalization

LIBRARY_SHAPE = (3, 224, 224)  # of ImageNet, which their networks are made for
LIBRARY_CLASSES = 1000
PUBLISHED = frozenset({"weights", "pretrained"})  # options that fetch published weights


def parse_architecture(spec: str) -> tuple[str, dict[str, object]] | None:
    """Name and options where ``spec`` is one of these networks, else None; options that fetch weights are left out."""
    name, options = parse_options(spec)
    if name not in ARCHITECTURES and name.partition(":")[0] not in LIBRARIES:
        return None
    return name, {key: value for key, value in options.items() if key not in PUBLISHED}


def plan_named(spec: str, request: ModelRequest, options: Mapping[str, object] | None = None) -> Blueprint:
    """Any of these networks, with the options in ``spec`` and the further ``options``."""
    name, spelled = parse_options(spec)
    return LIBRARIES.get(name.partition(":")[0], _plan_ours)(name, request, {**spelled, **(options or {})})


def _plan_ours(name: str, request: ModelRequest, options: Mapping[str, object]) -> Blueprint:
    """An architecture of ours, with random weights."""
    shape, normalization = request.image_shape or DEFAULT_SHAPE, request.normalization

    def make(classes: int) -> nn.Module:
        model = build(
            name, classes=classes, image_shape=shape, normalization=normalization, options=options, seed=request.seed
        )
        return model.eval()

    return Blueprint(make, shape, has_weights=False)


def _plan_torchvision(where: str, request: ModelRequest, options: Mapping[str, object]) -> Blueprint:
    """A classifier of ``torchvision.models``, behind ImageNet's normalisation.

    Weights are random unless the option ``weights`` names some, such as ``IMAGENET1K_V1`` or ``DEFAULT``, which are
    fetched when torch's cache does not have them. The other options are the builder's. A grey image is shown to all
    three channels. Raises :class:`ModelError`, :class:`DependencyError`.
    """
    name, image_shape = where.partition(":")[2], request.image_shape or LIBRARY_SHAPE
    with _library("torchvision", where):
        from torchvision import models
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(where, expected=f"one of torchvision's {len(known)} classifiers", got=near(name, known))
    if image_shape[0] not in {1, 3}:
        raise ModelError(where, expected="images of one or three channels", got=f"{image_shape[0]} channels")
    normalize = choose_normalization(request.normalization, channels=3)
    weights, fixed = options.get("weights"), None
    if weights is not None:
        offered = models.get_model_weights(name).__members__
        if weights not in offered:
            got = near(str(weights), offered)
            raise ModelError(f"{where}: weights", expected=f"one of {', '.join(offered)}", got=got)
        fixed = len(offered[str(weights)].meta["categories"])

    def make(classes: int) -> nn.Module:
        arguments = {"weights": None, **({"num_classes": classes} if weights is None else {}), **options}
        with _library("torchvision", where):
            return Normalized(Normalize(normalize), models.get_model(name, **arguments)).eval()

    has_weights = weights is not None
    return Blueprint(make, image_shape, classes=fixed, default_classes=LIBRARY_CLASSES, has_weights=has_weights)


def _plan_timm(where: str, request: ModelRequest, options: Mapping[str, object]) -> Blueprint:
    """A network of timm, for the channels of the images, behind the normalisation of its published configuration.

    Weights are random unless the option ``pretrained`` is true, which fetches them when the cache does not have them.
    The other options are those of ``timm.create_model``. Raises :class:`ModelError`, :class:`DependencyError`.
    """
    name = where.partition(":")[2]
    with _library("timm", where):
        import timm
    from_hub = ":" in name
    if not from_hub and not timm.is_model(name):
        known = timm.list_models()
        raise ModelError(where, expected=f"one of timm's {len(known)} models", got=near(name, known))
    published = None if from_hub else timm.get_pretrained_cfg(name)
    image_shape = request.image_shape
    if image_shape is None:
        image_shape = published.input_size if published and len(published.input_size) == 3 else LIBRARY_SHAPE
    channels, has_weights = image_shape[0], bool(options.get("pretrained"))

    def make(classes: int) -> nn.Module:
        with _library("timm", where):
            inner = timm.create_model(name, **{"in_chans": channels, "num_classes": classes, **options})
        config = getattr(inner, "pretrained_cfg", {})
        own = (config["mean"], config["std"]) if len(config.get("mean") or ()) == channels else None
        chosen = own if request.normalization is None else request.normalization
        return Normalized(Normalize(choose_normalization(chosen, channels=channels)), inner).eval()

    fixed = published.num_classes if has_weights and published else None
    return Blueprint(make, image_shape, classes=fixed, default_classes=LIBRARY_CLASSES, has_weights=has_weights)


LIBRARIES = {"torchvision": _plan_torchvision, "timm": _plan_timm}


@contextmanager
def _library(package: str, spec: str) -> Iterator[None]:
    """Name the extra when the package is missing; turn what it raises into one :class:`ModelError`."""
    try:
        with warnings.catch_warnings():
            # They announce other defaults of random initialisation, which the user can do nothing about.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise ModelError(spec, expected=f"a working {package}", got=f"no module {error.name!r}") from error
        raise DependencyError(package, extra=package, purpose=spec) from None
    except ModelError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {one_line(error)}"
        raise ModelError(spec, expected=f"a model from {package}", got=got) from error
