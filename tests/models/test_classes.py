"""Outputs of a model and classes of data belong together by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from assay.errors import ModelError
from assay.models.classes import MatchedClasses, match_classes
from assay.models.sources import load_model, open_model

Refused = Callable[[Callable[[], object]], str]
ELEVEN = tuple(map(str, range(11)))
SPEC = "resnet8,width=0.25"


@pytest.mark.parametrize(
    ("own", "data", "columns", "words"),
    [
        (("a", "b", "c"), ("a", "b", "c"), (0, 1, 2), None),
        (("a", "b", "c"), ("a", "c", "b"), (0, 2, 1), "in another order: matched by name"),
        (("a", "b", "c"), ("c", "a"), (2, 0), "have 2 of the 3 classes of M, matched by name"),
        (ELEVEN, tuple(sorted(ELEVEN)), (0, 1, 10, *range(2, 10)), "in another order: matched by name (they are num"),
        (("Traffic light", "Bus"), ("bus", "traffic_light"), (1, 0), "in another order"),
        (("Cafe\u0301", "bar"), ("caf\u00e9", "bar"), (0, 1), None),
        (("a", "b", "c"), ("0", "1", "2"), (0, 1, 2), "by position, a guess"),
        (("n01440764", "n01443537"), ("tench", "goldfish"), (0, 1), "by position, a guess"),
        (("+", "-"), ("-", "+"), (1, 0), "in another order"),
    ],
)
def test_names_find_their_outputs(
    own: tuple[str, ...], data: tuple[str, ...], columns: tuple[int, ...], words: str | None
) -> None:
    match = match_classes([own], data, where="M")
    assert match.columns == columns
    assert (match.note is None) if words is None else (match.note is not None and words in match.note)


@pytest.mark.parametrize(
    ("own", "data", "words"),
    [
        (
            ("a", "b", "c"),
            ("x", "y", "z"),
            "expected data of its classes, a, b, c, got x, y, z; where they are the same",
        ),
        (("a", "b", "c"), ("a", "b", "x"), "got x besides 2 of them"),
        (("a", "b", "c"), ("a", "b", "c", "d"), "got d besides 3 of them"),
        (("a", "b", "c"), ("0", "1"), "expected 2 classes, as the data has, got a model of 3"),
        (("a", "a", "b"), ("a", "b"), "expected data of its classes"),
        (tuple(map(str, range(10))), ELEVEN, "got 10 besides 10 of them"),
    ],
)
def test_classes_that_the_model_does_not_have_are_refused(
    own: tuple[str, ...], data: tuple[str, ...], words: str, refused: Refused
) -> None:
    message = refused(lambda: match_classes([own], data, where="M"))
    assert message.startswith("M: ")
    assert words in message


def test_positions_are_taken_where_the_user_says_so() -> None:
    match = match_classes([("a", "b")], ("b", "x"), where="M", by="position")
    assert (match.columns, str(match.note).endswith("a guess")) == ((0, 1), True)
    with pytest.raises(ModelError, match="expected 3 classes"):
        match_classes([("a", "b")], ("a", "b", "c"), where="M", by="position")


def test_further_names_of_the_same_outputs_match_too() -> None:
    own = [("tench", "crane", "crane"), ("n01", "n02", "n03")]
    assert match_classes(own, ("n03", "n01"), where="M").columns == (2, 0)
    assert match_classes(own, own[0], where="M").columns == (0, 1, 2)


def test_logits_come_in_the_order_of_the_data() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).train()
    matched = MatchedClasses(model, (2, 0), class_names=("a", "b", "c"))
    images = torch.rand(2, 1, 2, 2)
    assert torch.equal(matched(images), model(images)[:, [2, 0]])
    assert matched.training
    assert {name.removeprefix("model.") for name in matched.state_dict()} == set(model.state_dict())
    with pytest.raises(ModelError, match="columns|model output"):
        MatchedClasses(model, (2, 0), class_names=("a", "b"))(images)


def write_weights(folder: Path, how: str) -> Path:
    """Weights of three classes a, b, c, whose names lie where ``how`` says."""
    state = load_model(SPEC, classes=3, image_shape=(3, 16, 16), seed=5).state_dict()
    beside: dict[str, object] = {
        "list": {"classes": ["a", "b", "c"]},
        "to numbers": {"class_to_idx": {"c": 2, "a": 0, "b": 1}},
        "of numbers": {"meta": {"idx_to_class": {"0": "a", "1": "b", "2": "c"}}},
        "hyperparameters": {"hyper_parameters": {"class_names": ("a", "b", "c")}},
        "nonsense": {"classes": 3, "class_names": ["a"], "class_to_idx": {"a": 5, "b": 7, "c": 1}},
    }.get(how, {})  # type: ignore[assignment]
    if how == "header":
        save_file(state, folder / "w.safetensors", metadata={"classes": json.dumps(["a", "b", "c"])})
        return folder / "w.safetensors"
    torch.save({"state_dict": state, **beside}, folder / "w.pt")
    return folder / "w.pt"


@pytest.mark.parametrize("how", ["list", "to numbers", "of numbers", "hyperparameters", "header"])
def test_a_file_of_weights_tells_the_names_of_its_classes(how: str, tmp_path: Path) -> None:
    file = write_weights(tmp_path, how)
    plain = open_model(SPEC, weights=file, image_shape=(3, 16, 16))
    assert (plain.classes, plain.class_names) == (3, ("a", "b", "c"))
    loaded = open_model(SPEC, weights=file, classes=("c", "a"), image_shape=(3, 16, 16))
    assert (loaded.classes, loaded.class_names) == (2, ("c", "a"))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded.model(images), plain.model(images)[:, [2, 0]])
    assert "2 of the 3 classes" in loaded.notes[0]


def test_names_that_are_none_are_no_names(tmp_path: Path) -> None:
    loaded = open_model(SPEC, weights=write_weights(tmp_path, "nonsense"), classes=("x", "y", "z"),
                        image_shape=(3, 16, 16))  # fmt: skip
    assert (loaded.class_names, loaded.notes) == (None, ())


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "timm:test_convnext"])
def test_a_count_or_numbers_do_not_make_ten_classes_of_published_weights(
    spec: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("fetched"))
    published = f"{spec},weights=DEFAULT" if "torchvision" in spec else f"{spec},pretrained=true"
    for classes in (10, tuple("0123456789")):
        assert refused(lambda: open_model(published, classes=classes, image_shape=(3, 64, 64))) == (  # noqa: B023
            f"{published}: expected 10 classes, as the data has, got a model of 1000"
        )
    strangers = refused(lambda: open_model(published, classes=("aeroplane model", "bird model")))
    assert f"{published}: expected data of its classes, tench, goldfish," in strangers


@pytest.mark.parametrize("names", [("tabby", "Golden Retriever"), ("n02123045", "n02099601")])
def test_classes_of_published_weights_are_found_by_their_names(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    state = squeezenet1_1().state_dict()
    monkeypatch.setattr(SqueezeNet1_1_Weights, "get_state_dict", lambda *_, **__: state)
    loaded = open_model("torchvision:squeezenet1_1,weights=DEFAULT", classes=names, image_shape=(3, 64, 64))
    assert isinstance(loaded.model, MatchedClasses)
    assert loaded.model.columns.tolist() == [281, 207]
    assert "2 of the 1000 classes" in loaded.notes[0]


def write_timm_folder(folder: Path) -> str:
    import timm

    model = timm.create_model("test_convnext", num_classes=5)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "test_convnext", "num_classes": 5,
        "pretrained_cfg": {**model.pretrained_cfg, "num_classes": 5, "label_names": list("abcde")},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return f"timm:local-dir:{folder},pretrained=true"


def test_a_library_gives_no_random_last_layer_without_a_word(tmp_path: Path, refused: Refused) -> None:
    spec = write_timm_folder(tmp_path)
    assert open_model(spec).class_names == tuple("abcde")
    assert open_model(spec, classes=("e", "a")).model(torch.rand(1, 3, 160, 160)).shape == (1, 2)
    assert (
        refused(lambda: open_model(spec, classes=3)) == f"{spec}: expected 3 classes, as the data has, got a model of 5"
    )
    loaded = open_model(f"{spec},num_classes=3", classes=("x", "y", "z"))
    (note,) = loaded.notes
    assert note.endswith("has a random last layer: its weights are of 5 classes, not of 3")
