"""Networks of torchvision and timm, by name, made to take pixels in [0, 1]."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from assay.errors import DependencyError, ModelError
from assay.models.architectures import near
from assay.models.wrappers import Normalize, Normalized, choose_normalization

LIBRARY_SHAPE = (3, 224, 224)  # of ImageNet, which their networks are made for
LIBRARY_CLASSES = 1000
Wanted = str | tuple[Sequence[float], Sequence[float]] | None


@dataclass(frozen=True)
class LibraryModel:
    """``make(classes)`` builds the network for images of ``image_shape``.

    ``published`` says whether it comes with published weights, ``published_classes`` the number these fix where known.
    """

    make: Callable[[int], nn.Module]
    image_shape: tuple[int, int, int]
    published: bool
    published_classes: int | None


def find_torchvision(
    name: str, *, image_shape: tuple[int, int, int] | None, normalization: Wanted, options: Mapping[str, object]
) -> LibraryModel:
    """The classifier ``name`` of ``torchvision.models``, behind ImageNet's normalisation.

    Weights are random unless asked for by name: ``options["weights"]``, such as ``IMAGENET1K_V1`` or ``DEFAULT``, which
    are fetched when torch's cache does not have them. The other options go to the builder. A grey image is shown to all
    three channels. Raises :class:`ModelError`, :class:`DependencyError`.
    """
    spec = f"torchvision:{name}"
    image_shape = image_shape or LIBRARY_SHAPE
    with _library("torchvision", spec):
        from torchvision import models
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(spec, expected=f"one of torchvision's {len(known)} classifiers", got=near(name, known))
    if image_shape[0] not in {1, 3}:
        raise ModelError(spec, expected="images of one or three channels", got=f"{image_shape[0]} channels")
    normalize = choose_normalization(normalization, channels=3)
    wanted, published_classes = options.get("weights"), None
    if wanted is not None:
        offered = models.get_model_weights(name).__members__
        if wanted not in offered:
            raise ModelError(
                f"{spec}: weights", expected=f"one of {', '.join(offered)}", got=near(str(wanted), offered)
            )
        published_classes = len(offered[str(wanted)].meta["categories"])

    def make(classes: int) -> nn.Module:
        arguments = {"weights": None, **options}
        if wanted is None:
            arguments.setdefault("num_classes", classes)
        with _library("torchvision", spec):
            return Normalized(Normalize(normalize), models.get_model(name, **arguments)).eval()

    return LibraryModel(make, image_shape, published=wanted is not None, published_classes=published_classes)


def find_timm(
    name: str, *, image_shape: tuple[int, int, int] | None, normalization: Wanted, options: Mapping[str, object]
) -> LibraryModel:
    """timm's network ``name``, for the channels of the images, behind the normalisation it states.

    Weights are random unless asked for: ``options["pretrained"]`` fetches them when the cache does not have them. The
    other options go to ``timm.create_model``. Raises :class:`ModelError`, :class:`DependencyError`.
    """
    spec = f"timm:{name}"
    with _library("timm", spec):
        import timm
    from_hub = ":" in name
    if not from_hub and not timm.is_model(name):
        known = timm.list_models()
        raise ModelError(spec, expected=f"one of timm's {len(known)} models", got=near(name, known))
    stated = None if from_hub else timm.get_pretrained_cfg(name)
    if image_shape is None:
        image_shape = stated.input_size if stated and len(stated.input_size) == 3 else LIBRARY_SHAPE
    channels, published = image_shape[0], bool(options.get("pretrained"))

    def make(classes: int) -> nn.Module:
        arguments: dict[str, Any] = {"in_chans": channels, "num_classes": classes, **options}
        with _library("timm", spec):
            inner = timm.create_model(name, **arguments)
        numbers = getattr(inner, "pretrained_cfg", {})
        own = (numbers["mean"], numbers["std"]) if len(numbers.get("mean") or ()) == channels else None
        normalize = choose_normalization(own if normalization is None else normalization, channels=channels)
        return Normalized(Normalize(normalize), inner).eval()

    published_classes = stated.num_classes if published and stated else None
    return LibraryModel(make, image_shape, published=published, published_classes=published_classes)


LIBRARIES: Mapping[str, Callable[..., LibraryModel]] = MappingProxyType(
    {"torchvision": find_torchvision, "timm": find_timm}
)


@contextmanager
def _library(package: str, spec: str) -> Iterator[None]:
    """Name the extra when the package is missing; turn what it raises into one :class:`ModelError`."""
    try:
        with warnings.catch_warnings():
            # Notes on future defaults of random initialisation, which the reader can do nothing about.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise ModelError(spec, expected=f"a working {package}", got=f"no module {error.name!r}") from error
        raise DependencyError(package, extra=package, purpose=spec) from None
    except ModelError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(spec, expected=f"a model from {package}", got=f"{type(error).__name__}: {reason}") from error
