"""What networks of other libraries have in common: their defaults, ImageNet's classes, and what fails in them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from assay.errors import DependencyError, ModelError, OptionError, one_line

LIBRARY_SHAPE = (3, 224, 224)  # of ImageNet, which their networks are made for
LIBRARY_CLASSES = 1000


def count_of_classes(classes: object, *, where: str) -> int | None:
    if classes is not None and (not isinstance(classes, int) or classes < 1):
        raise OptionError(f"{where}: num_classes", expected="a number of classes", got=repr(classes))
    return classes


def imagenet_synsets() -> tuple[str, ...]:
    """The ids n01440764, … of ImageNet's 1,000 classes in their order, as timm lists them; none without timm."""
    package = find_spec("timm")
    if package is None or package.origin is None:
        return ()
    listed = Path(package.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    return tuple(listed.read_text(encoding="utf-8").split()) if listed.is_file() else ()


def imagenet_classes(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Other names of these classes, their synsets, where they are ImageNet's 1,000 in order; nothing without timm.

    They are taken for ImageNet's where 95 in 100 have its name for the class in that place: spellings differ.
    """
    synsets = imagenet_synsets()
    if len(names) != len(synsets) or find_spec("timm") is None:
        return ()
    from timm.data import ImageNetInfo

    def plain(name: str) -> str:
        return name.partition(",")[0].strip().lower()

    described = ImageNetInfo().label_descriptions()
    agreeing = sum(plain(name) == plain(known) for name, known in zip(names, described, strict=True))
    return (synsets,) if agreeing >= 0.95 * len(names) else ()


def imagenet_names() -> tuple[tuple[str, ...], ...]:
    """The names of ImageNet's 1,000 classes in their order, their synsets, and their descriptions, as timm has them.

    Raises :class:`DependencyError` without timm.
    """
    with library("timm", "the names of ImageNet's classes"):
        from timm.data import ImageNetInfo

        described = tuple(ImageNetInfo().label_descriptions())
    return tuple(each.partition(",")[0] for each in described), imagenet_synsets(), described


@contextmanager
def library(package: str, spec: str) -> Iterator[None]:
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
