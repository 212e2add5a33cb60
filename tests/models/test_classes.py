"""Outputs of a model and classes of data belong together by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import assay
from assay.data import ImageDataset
from assay.errors import ModelError
from assay.models.calls import calling
from assay.models.classes import MatchedClasses, match_classes, read_class_names
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


@pytest.mark.parametrize(
    ("own", "data", "columns"),
    [
        ([("tench", "crane", "crane"), ("n01440764", "n02012849", "n03126707")],
         ("n03126707-crane", "n01440764_fish"), (2, 0)),
        ([("traffic-light", "Hot Dog"), ("x", "y")], ("hotdog",), (1,)),
        ([("tench, Tinca tinca", "cock", "cougar, puma, panther")], ("Puma", "tench"), (2, 0)),
        ([("tench", "cock")], ("cock, rooster", "tench, Tinca tinca"), (1, 0)),
    ],
)  # fmt: skip
def test_other_spellings_are_matched_where_they_are_certain(
    own: list[tuple[str, ...]], data: tuple[str, ...], columns: tuple[int, ...]
) -> None:
    match = match_classes(own, data, where="M")
    assert match.columns == columns
    assert "guess" not in str(match.note)


@pytest.mark.parametrize("data", [("crane", "cock"), ("hen, cock", "dog"), ("cock", "rooster")])
def test_aliases_that_lead_to_two_outputs_or_to_none_are_refused(data: tuple[str, ...], refused: Refused) -> None:
    own = [("crane, bird", "crane, machine", "cock, rooster", "hen")]
    assert "expected data of its classes" in refused(lambda: match_classes(own, data, where="M"))


def test_a_name_of_several_outputs_is_told(refused: Refused) -> None:
    message = refused(lambda: match_classes([("Crane", "CRANE", "tench")], ("crane", "tench"), where="M"))
    assert "got crane besides 1 of them (crane: the name of several outputs)" in message


FILES = {
    "lines.txt": ("a\nb\nc\n", (("a", "b", "c"),)),
    "windows.txt": ("\ufeffa\r\nb\r\nc", (("a", "b", "c"),)),
    "synsets.txt": ("n01440764 tench, Tinca tinca\nn01443537 goldfish\n",
                    (("tench, Tinca tinca", "goldfish"), ("n01440764", "n01443537"))),
    "list.json": ('["a", "b", "c"]', (("a", "b", "c"),)),
    "numbers.json": ('{"1": "b", "0": "a", "2": "c"}', (("a", "b", "c"),)),
    "reverse.json": ('{"b": 1, "a": 0, "c": 2}', (("a", "b", "c"),)),
    "index.json": ('{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}',
                   (("tench", "goldfish"), ("n01440764", "n01443537"))),
    "config.json": ('{"id2label": {"0": "a", "1": "b"}, "hidden_size": 3}', (("a", "b"),)),
    "no-ending": ("001\n002\n", (("001", "002"),)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_names_of_outputs_are_read_from_a_file(name: str, tmp_path: Path) -> None:
    text, names = FILES[name]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_class_names(tmp_path / name) == names


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, "expected a file with the names of the model's outputs, got No such file"),
        ("empty.txt", b"", "expected the names of at least two classes, got 0"),
        ("gap.txt", b"a\n\nc\n", "gap.txt[1]: expected the name of a class, got an empty one"),
        ("bytes.txt", b"\xff\xfe\xff", "expected text in UTF-8"),
        ("broken.json", b"[1,", "expected JSON"),
        ("one.json", b'{"1": "a", "2": "b"}', "expected numbers of classes 0..1, each once, got 1, 2"),
        ("twice.json", b'{"a": 0, "b": 0}', "expected numbers of classes 0..1, each once, got"),
        ("values.json", b"[1, 2]", "expected a list of names, or an object from number to name"),
        ("ragged.json", b'[["n1", "a"], ["n2"]]', "got 1 names instead of 2"),
    ],
)
def test_a_file_without_names_is_refused(
    name: str, content: bytes | None, words: str, tmp_path: Path, refused: Refused
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert words in refused(lambda: read_class_names(tmp_path / name))


def test_names_that_are_given_take_the_place_of_the_sources(tmp_path: Path, refused: Refused) -> None:
    file = write_weights(tmp_path, "list")
    options = {"weights": file, "image_shape": (3, 16, 16), "class_names": [("x", "y", "z"), ("1", "2", "3")]}
    loaded = open_model(SPEC, classes=("z", "x"), **options)  # type: ignore[arg-type]
    assert isinstance(loaded.model, MatchedClasses)
    assert loaded.model.columns.tolist() == [2, 0]
    message = refused(lambda: open_model(SPEC, classes=("a", "b"), **options))  # type: ignore[arg-type]
    assert "expected data of its classes, x, y, z, got a, b" in message
    names = [tuple(map(str, range(7)))]
    published = "torchvision:resnet18,num_classes=5"
    message = refused(lambda: open_model(published, classes=("a", "b"), class_names=names))
    assert message == f"{published}: expected names of its 5 classes, got 7 names"


def test_a_prediction_outside_of_the_datas_classes_is_wrong_over_all(tmp_path: Path) -> None:
    names = ("fish", "bird", "bird", "frog")
    state = load_model(SPEC, classes=4, image_shape=(3, 16, 16), seed=5).state_dict()
    save_file(state, tmp_path / "w.safetensors", metadata={"classes": json.dumps(names)})
    images = torch.randint(0, 256, (60, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.arange(60) % 2
    data = ImageDataset(images, labels, ("frog", "fish"), "two of four")
    options = {"weights": tmp_path / "w.safetensors", "classes": data.classes, "image_shape": data.shape}
    over = {by: open_model(SPEC, score_over=by, **options) for by in ("subset", "all")}  # type: ignore[arg-type]
    assert over["all"].columns == (3, 0)
    assert over["all"].class_names == ("fish", "bird (1)", "bird (2)", "frog")
    assert "predictions are among all of them" in over["all"].notes[-1]
    assert over["subset"].columns is None
    with torch.no_grad():
        logits = over["all"].model(images / 255)
    predicted = logits.argmax(1)
    right = (predicted == torch.tensor([3, 0])[labels]).sum()
    right_of_two = (logits[:, [3, 0]].argmax(1) == labels).sum()
    renumbered = data.renumbered(over["all"].columns, classes=over["all"].class_names)
    assert renumbered.labels.tolist() == torch.tensor([3, 0])[labels].tolist()
    clean = assay.measure_clean_accuracy(over["all"].model, renumbered)
    assert clean.correct == int(right)
    assert assay.measure_clean_accuracy(over["subset"].model, data).correct == int(right_of_two)
    attacked = assay.measure_robust_accuracy(over["all"].model, renumbered, attack="fgsm", epsilon=0.02)
    assert int((attacked.result.clean_logits.argmax(1) == renumbered.labels).sum()) == int(right)


@pytest.mark.parametrize("way", ["count", "weights"])
def test_one_output_stands_for_two_classes(way: str, tmp_path: Path) -> None:
    loaded = open_model("torchvision:resnet18,num_classes=1", classes=("a", "b"), image_shape=(3, 32, 32))
    if way == "weights":
        save_file(loaded.model.model.state_dict(), tmp_path / "w.safetensors")
        loaded = open_model("torchvision:resnet18", weights=tmp_path / "w.safetensors", classes=("a", "b"),
                            image_shape=(3, 32, 32))  # fmt: skip
    assert loaded.classes == 1
    with calling(loaded.model, torch.rand(2, 3, 32, 32), classes=("a", "b")) as network, torch.no_grad():
        assert network(torch.rand(3, 3, 32, 32)).shape == (3, 2)


def test_ids_of_synsets_have_the_words_of_a_model_that_has_the_ids_too() -> None:
    own = (("tench", "crane", "crane"), ("n01440764", "n02012849", "n03126707"))
    match = match_classes(own, ("n03126707", "n01440764", "n02012849"), where="net")
    assert match.columns == (2, 0, 1)
    assert match.titles == ("crane (n03126707)", "tench", "crane (n02012849)")


def test_words_are_never_guessed() -> None:
    words, ids = ("tench", "crane"), ("n01440764", "n02012849")
    assert match_classes((words,), ids, where="net").titles is None  # by position
    assert match_classes((ids,), ids, where="net").titles is None
    assert match_classes((words, ids), words, where="net").titles is None  # the data have words of their own
