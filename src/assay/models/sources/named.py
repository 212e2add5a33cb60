"""Networks that have a name: our architectures, torchvision's and timm's, made to take pixels in [0, 1]."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from assay.errors import DependencyError, ModelError, OptionError, one_line
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
    weights, fixed, names = options.get("weights"), options.get("num_classes"), None
    if weights is not None:
        offered = models.get_model_weights(name).__members__
        if weights not in offered:
            got = near(str(weights), offered)
            raise ModelError(f"{where}: weights", expected=f"one of {', '.join(offered)}", got=got)
        names = tuple(offered[str(weights)].meta["categories"])

    def make(classes: int) -> nn.Module:
        arguments = {"weights": None, **({"num_classes": classes} if weights is None else {}), **options}
        with _library("torchvision", where):
            return Normalized(Normalize(normalize), models.get_model(name, **arguments)).eval()

    return Blueprint(
        make,
        image_shape,
        classes=_count(fixed, where=where) if names is None else len(names),
        class_names=names,
        synonyms=(_imagenet_synsets(),) if names is not None and len(names) == LIBRARY_CLASSES else (),
        default_classes=LIBRARY_CLASSES,
        has_weights=weights is not None,
    )


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
    with _library("timm", where):  # a model of the hub tells its configuration once it is built
        if from_hub:
            published = dict(timm.create_model(name).pretrained_cfg)
        else:
            known_as = timm.get_pretrained_cfg(name)
            published = {} if known_as is None else vars(known_as)
    image_shape = request.image_shape
    if image_shape is None:
        image_shape = tuple(published.get("input_size") or ())
        image_shape = image_shape if len(image_shape) == 3 else LIBRARY_SHAPE
    channels, has_weights = image_shape[0], bool(options.get("pretrained"))
    trained = published.get("num_classes") if has_weights else None
    fixed = _count(options.get("num_classes", trained), where=where)
    notes: tuple[str, ...] = ()
    if trained is not None and fixed != trained:
        notes = (f"{where} has a random last layer: its weights are of {trained} classes, not of {fixed}",)

    def make(classes: int) -> nn.Module:
        with _library("timm", where):
            inner = timm.create_model(name, **{"in_chans": channels, "num_classes": classes, **options})
        config = getattr(inner, "pretrained_cfg", {})
        own = (config["mean"], config["std"]) if len(config.get("mean") or ()) == channels else None
        chosen = own if request.normalization is None else request.normalization
        return Normalized(Normalize(choose_normalization(chosen, channels=channels)), inner).eval()

    names = tuple(map(str, published.get("label_names") or ())) if fixed == trained else ()
    synonyms: tuple[tuple[str, ...], ...] = ()
    if trained == fixed == LIBRARY_CLASSES and not names:
        described = tuple(timm.data.ImageNetInfo().label_descriptions())
        names, synonyms = tuple(each.partition(",")[0] for each in described), (_imagenet_synsets(), described)
    return Blueprint(
        make,
        image_shape,
        classes=fixed,
        class_names=names or None,
        synonyms=synonyms,
        default_classes=LIBRARY_CLASSES,
        has_weights=has_weights,
        notes=notes,
    )


LIBRARIES = {"torchvision": _plan_torchvision, "timm": _plan_timm}


def _count(classes: object, *, where: str) -> int | None:
    if classes is not None and (not isinstance(classes, int) or classes < 1):
        raise OptionError(f"{where}: num_classes", expected="a number of classes", got=repr(classes))
    return classes


def _imagenet_synsets() -> tuple[str, ...]:
    """The ids n01440764, … of ImageNet's 1,000 classes in their order, as timm lists them; none without timm."""
    package = find_spec("timm")
    if package is None or package.origin is None:
        return ()
    listed = Path(package.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    return tuple(listed.read_text(encoding="utf-8").split()) if listed.is_file() else ()


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
