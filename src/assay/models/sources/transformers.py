"""Image classifiers of Hugging Face's transformers, ``transformers:FOLDER`` or of its hub, with their processors.

A folder is one that ``save_pretrained`` wrote: ``config.json``, ``preprocessor_config.json`` and safetensors.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assay.errors import ModelError, OptionError
from assay.models.classes import few
from assay.models.sources.blueprint import Blueprint, ModelRequest, Structure, require_trust
from assay.models.sources.hub import fetch_model, read_json, require_safetensors
from assay.models.sources.library import LIBRARY_CLASSES, LIBRARY_SHAPE, imagenet_classes, library
from assay.models.sources.processors import prepared_by
from assay.models.wrappers import Normalize, Normalized, choose_normalization
from assay.records.preparation import Preparation

CONFIG, PROCESSORS = "config.json", ("preprocessor_config.json", "processor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
FETCHED = (CONFIG, *PROCESSORS, "model*.safetensors", "model.safetensors.index.json")
OPTIONS = frozenset({"pretrained", "config", "channels"})


class ImageClassifier(Normalized):
    """A classifier of transformers that takes pixels in [0, 1], reversed for one of ``bgr``, and gives its logits."""

    def __init__(self, normalize: Normalize, model: nn.Module, *, bgr: bool) -> None:
        super().__init__(normalize, model)
        self.bgr = bgr

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.flip(1) if self.bgr else images).logits  # type: ignore[attr-defined, no-any-return]


def plan_transformers(where: str, request: ModelRequest, options: Mapping[str, object]) -> Blueprint:
    """The classifier of a folder or of the hub, behind its processor's normalisation.

    ``pretrained=false`` gives it random weights. The option ``config``, a configuration itself, stands for the folder:
    a run folder has it. Raises :class:`ModelError` for what is no image classifier, has no safetensors, or needs code
    of its own that nobody trusts; :class:`DependencyError`.
    """
    if unknown := sorted(options.keys() - OPTIONS):
        raise OptionError(f"{where}: {unknown[0]}", expected="pretrained", got="no such option")
    if isinstance(options.get("config"), Mapping):
        return _plan_structure(where, request, options)
    folder, trained = _find(where, request), options.get("pretrained", True) is not False
    content = read_json(folder / CONFIG, where=where)
    _refuse_code(content, CONFIG, where=where, request=request)
    if trained:
        require_safetensors(folder, *WEIGHTS, where=where)
    with library("transformers", where), _quiet():
        from transformers import AutoConfig

        _require_classifier(content, where=where)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=request.trust_code, local_files_only=True)
        preparation, guessed = _read_preparation(folder, config, where=where, request=request)
    count, names = _classes(config, content) if trained else (None, None)
    remarks: list[str] = []

    def make(classes: int) -> nn.Module:
        network = _build(config, classes, folder if trained else None, where=where, request=request, remarks=remarks)
        return _wrap(network, preparation, request)

    height, width = preparation.size or _image_size(config) or LIBRARY_SHAPE[1:]
    return Blueprint(
        make,
        request.image_shape or (_channels(config), height, width),
        classes=count,
        class_names=names,
        synonyms=imagenet_classes(names) if names else (),
        default_classes=LIBRARY_CLASSES,
        has_weights=trained,
        notes=guessed,
        remarks=remarks,
        preparation=preparation,
        structure=None if "auto_map" in content else _structure(config, preparation),
    )


def _plan_structure(where: str, request: ModelRequest, options: Mapping[str, object]) -> Blueprint:
    """The classifier of a configuration alone, with random weights."""
    content = options["config"]
    assert isinstance(content, Mapping)
    with library("transformers", where), _quiet():
        from transformers import CONFIG_MAPPING

        _require_classifier(content, where=where)
        config = CONFIG_MAPPING[content["model_type"]].from_dict(dict(content))
    bgr = options.get("channels") == "bgr"
    preparation = Preparation(channels="bgr" if bgr else "rgb")

    def make(classes: int) -> nn.Module:
        return _wrap(_build(config, classes, None, where=where, request=request, remarks=[]), preparation, request)

    shape = request.image_shape or (_channels(config), *(_image_size(config) or LIBRARY_SHAPE[1:]))
    structure = _structure(config, preparation)
    return Blueprint(make, shape, default_classes=LIBRARY_CLASSES, has_weights=False, structure=structure)


def _find(where: str, request: ModelRequest) -> Path:
    """The folder that is named, or that of the hub's cache with the files fetched."""
    name = where.partition(":")[2]
    place = Path(name).expanduser()
    if place.is_dir():
        return place
    if place.exists() or not name or name.startswith((".", "/", "~")):
        got = "a file" if place.is_file() else "no such folder"
        raise ModelError(where, expected="a folder written by save_pretrained, or OWNER/NAME on the hub", got=got)
    return fetch_model(name, files=(*FETCHED, *(["*.py"] if request.trust_code else [])), where=where)


def _refuse_code(content: Mapping[str, Any], file: str, *, where: str, request: ModelRequest) -> None:
    """What names Python code of its own runs it when it is opened."""
    if code := content.get("auto_map"):
        names = ", ".join(map(str, code.values())) if isinstance(code, Mapping) else str(code)
        require_trust(where, f"its {file} names Python code to run (auto_map: {names})", request)


def _require_classifier(content: Mapping[str, Any], *, where: str) -> None:
    from transformers.models.auto import modeling_auto

    known = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    kind, written = content.get("model_type"), content.get("architectures") or ()
    if kind == "timm_wrapper" or "architecture" in content:
        raise ModelError(where, expected="a model of transformers", got="one of timm: name it timm:local-dir:FOLDER")
    if "auto_map" in content or kind in known:
        return
    name = ", ".join(map(str, written)) or "a model"
    got = f"{name} of the type {kind!r}" if kind else f"a {CONFIG} without model_type"
    raise ModelError(where, expected=f"one of transformers' {len(known)} kinds of image classifiers", got=got)


def _classes(config: Any, content: Mapping[str, Any]) -> tuple[int | None, tuple[str, ...] | None]:
    """How many classes the weights are of, and their names: none where the file has a network without a head."""
    written = [str(each) for each in content.get("architectures") or ()]
    if written and not any("ImageClassification" in each for each in written):
        return None, None
    labels = {int(place): str(name) for place, name in config.id2label.items()}
    names = tuple(labels[place] for place in sorted(labels))
    generic = sorted(labels) != list(range(len(labels))) or any(re.fullmatch(r"LABEL_\d+", name) for name in names)
    return int(config.num_labels), None if generic else names


def _channels(config: Any) -> int:
    return int(getattr(config, "num_channels", None) or 3)


def _image_size(config: Any) -> tuple[int, int] | None:
    size = getattr(config, "image_size", None)
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return (size, size) if isinstance(size, int) else None


def _structure(config: Any, preparation: Preparation) -> Structure:
    """What the network is built from again without the folder."""
    channels = {"channels": "bgr"} if preparation.channels == "bgr" else {}
    content = json.loads(config.to_json_string(use_diff=True))
    return Structure(f"transformers:{config.model_type}", {"config": content, **channels})


def _wrap(network: nn.Module, preparation: Preparation, request: ModelRequest) -> nn.Module:
    own = preparation.normalization or ((0.0,), (1.0,))
    channels = _channels(network.config)
    chosen = choose_normalization(own if request.normalization is None else request.normalization, channels=channels)
    return ImageClassifier(Normalize(chosen), network, bgr=preparation.channels == "bgr").eval()


def _build(
    config: Any, classes: int, folder: Path | None, *, where: str, request: ModelRequest, remarks: list[str]
) -> nn.Module:
    """The network in float32, with the weights in ``folder``; what they leave at random is among the ``remarks``."""
    import torch

    with library("transformers", where), _quiet():
        from transformers import AutoModelForImageClassification as Classifier

        if config.num_labels != classes:
            config.num_labels = classes
        config.return_dict = True
        options = {"trust_remote_code": request.trust_code, "dtype": torch.float32}
        if folder is None:
            return Classifier.from_config(config, **options)  # type: ignore[no-any-return]
        network, report = Classifier.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
    missing, unused = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    inner = f"{network.base_model_prefix}."
    if missing_inside := [name for name in missing if name.startswith(inner)]:
        got = f"a file without {few(missing_inside, most=3)}"
        raise ModelError(where, expected=f"the weights of {type(network).__name__}", got=got)
    if missing:
        remarks.append(f"{where} has a random last layer: its file has no weights for {few(missing, most=3)}")
    if unused:
        unused_ones = f"{len(unused)} tensors of its file ({few(unused, most=3)})"
        remarks.append(f"{where}: {unused_ones} are not used, as {type(network).__name__} has none of these names")
    return network  # type: ignore[no-any-return]


def _read_preparation(
    folder: Path, config: Any, *, where: str, request: ModelRequest
) -> tuple[Preparation, tuple[str, ...]]:
    """What the processor of ``folder`` does; without one, what that of this kind of model does, noted as a guess."""
    from transformers import AutoImageProcessor
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    for name in PROCESSORS:
        if (folder / name).is_file():
            content = read_json(folder / name, where=where)
            _refuse_code({**content, **content.get("image_processor", {})}, name, where=where, request=request)
            processor = AutoImageProcessor.from_pretrained(
                folder, backend="pil", config=config, trust_remote_code=request.trust_code, local_files_only=True
            )
            return prepared_by(processor, source=f"{where}, {name}"), ()
    size = _image_size(config)
    kind = IMAGE_PROCESSOR_MAPPING.get(type(config), {}).get("pil")
    preparation = None if kind is None else prepared_by(kind(), source=f"{where}, a guess")
    if preparation is None or (size is not None and preparation.size != size):
        fields = {} if preparation is None else {name: getattr(preparation, name) for name in ("mean", "std", "scale")}
        squash = size or LIBRARY_SHAPE[1:]
        preparation = Preparation(resize=squash, fit="squash", **fields, source=f"{where}, a guess")
    guess = f"pictures are prepared by a guess, {preparation.spelled}"
    return preparation, (f"{where} has no {PROCESSORS[0]}: {guess}; state it with --prepare",)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, no progress bars, no reports of transformers on standard error: what matters becomes a note."""
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
