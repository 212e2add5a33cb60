"""Anything in Python that holds labelled images is a data set, with each sample once, or is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import assay
from assay.data import ImageDataset, as_dataset
from assay.errors import DataError, OptionError
from assay.records.preparation import Preparation

N = 24
GENERATOR = torch.Generator().manual_seed(0)
PIXELS = torch.randint(0, 256, (N, 3, 8, 6), generator=GENERATOR).to(torch.uint8)
LABELS = torch.arange(N) % 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pil(place: int) -> Image.Image:
    return Image.fromarray(PIXELS[place].permute(1, 2, 0).numpy())


class Pictures(Dataset[Any]):
    """As a data set of torchvision: pictures of PIL through a transform, and labels beside them."""

    def __init__(self, transform: Callable[[Image.Image], Any] | None = None, **attributes: Any) -> None:
        self.transform = transform
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return N

    def __getitem__(self, place: int) -> tuple[Any, int]:
        picture = pil(place)
        return (picture if self.transform is None else self.transform(picture)), int(LABELS[place])


class Stream(IterableDataset[Any]):
    def __init__(self, order: Callable[[], list[int]] = lambda: list(range(N))) -> None:
        self.order = order

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return ((PIXELS[place] / 255, int(LABELS[place])) for place in self.order())


def to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def normalised(dtype: torch.dtype = torch.float32) -> Tensor:
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return ((PIXELS / 255 - mean) / std).to(dtype)


def as_torch(batch: list[Any]) -> dict[str, Tensor]:
    return {"pixel_values": torch.stack([to_tensor(each) for each, _ in batch]), "labels": LABELS[:1]}


OBJECTS: dict[str, Callable[[], object]] = {
    "data set of pictures": Pictures,
    "of tensors": lambda: Pictures(to_tensor),
    "of half floats": lambda: Pictures(lambda picture: to_tensor(picture).half()),
    "loader": lambda: DataLoader(Pictures(to_tensor), batch_size=5),
    "loader with workers": lambda: DataLoader(Pictures(to_tensor), batch_size=5, num_workers=1),
    "loader that shuffles": lambda: DataLoader(Pictures(to_tensor), batch_size=5, shuffle=True),
    "loader of a stream": lambda: DataLoader(Stream(), batch_size=5),
    "stream": Stream,
    "TensorDataset": lambda: TensorDataset(PIXELS / 255, LABELS),
    "ConcatDataset": lambda: ConcatDataset([Subset(Pictures(), range(9)), Subset(Pictures(), range(9, N))]),
    "list of pictures": lambda: [(pil(place), LABELS[place]) for place in range(N)],
    "list of arrays, one-hot": lambda: [
        (image.permute(1, 2, 0).numpy(), row)
        for image, row in zip(PIXELS, np.eye(3)[LABELS], strict=True)
    ],
    "list of dicts": lambda: [{"pixel_values": PIXELS[place], "label": int(LABELS[place])} for place in range(N)],
    "arrays": lambda: (PIXELS.permute(0, 2, 3, 1).numpy(), LABELS.numpy()),
    "lists": lambda: ([pil(place) for place in range(N)], LABELS.tolist()),
    "dict of arrays": lambda: {"x": PIXELS.numpy(), "y": LABELS[:, None].numpy()},
    "dict of splits": lambda: {"train": TensorDataset(PIXELS[:3], LABELS[:3]), "test": (PIXELS, LABELS)},
    "numbers 0..255": lambda: (PIXELS.double(), LABELS),
    "whole numbers": lambda: (PIXELS.long(), LABELS.int()),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_gives_the_same_samples(name: str) -> None:
    data = as_dataset(OBJECTS[name]())
    assert torch.equal(data.images, PIXELS)
    assert torch.equal(data.labels, LABELS)
    assert data.ids.tolist() == list(range(N))
    assert data.classes == ("0", "1", "2")


def test_functions_take_them_as_they_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    wanted = assay.measure_clean_accuracy(model, ImageDataset(PIXELS, LABELS, ("0", "1", "2")))
    shuffled = DataLoader(Pictures(to_tensor), batch_size=7, shuffle=True)
    with pytest.warns(UserWarning, match="DataLoader: it shuffles: read in the order of its data set") as caught:
        assert assay.measure_clean_accuracy(model, shuffled).confusion == wanted.confusion  # type: ignore[arg-type]
    assert caught[0].filename == __file__
    budget = assay.check.Budget(name="tiny", clean=N, attacked=2, probed=2, steps=1, sanity_samples=2)
    with pytest.warns(UserWarning, match="it shuffles"):
        checkup = assay.run_check(model, shuffled, budget=budget)  # type: ignore[arg-type]
    assert "DataLoader: it shuffles: read in the order of its data set" in checkup.subject.notes
    for obj in (DataLoader(Pictures(to_tensor), batch_size=7), [(pil(i), int(LABELS[i])) for i in range(N)]):
        assert assay.measure_clean_accuracy(model, obj).confusion == wanted.confusion  # type: ignore[arg-type]
    recipe = assay.load_recipe("digits", overrides=["epochs=1", "batch_size=8"])
    stream: Any = Stream()
    result = assay.fit(model, stream, recipe=recipe, validation=TensorDataset(PIXELS, LABELS))  # type: ignore[arg-type]
    assert result is not None


def test_outputs_are_matched_to_the_classes_of_the_object() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    data = ImageDataset(PIXELS, LABELS, ("ant", "bee", "cat"))
    model = assay.as_model(network, classes=("cat", "ant", "bee"))
    obj: Any = Pictures(class_to_idx={"ant": 0, "bee": 1, "cat": 2})
    confusion = assay.measure_clean_accuracy(model, data).confusion
    assert assay.measure_clean_accuracy(model, obj).confusion == confusion
    assert confusion != assay.measure_clean_accuracy(network, data).confusion


@pytest.mark.parametrize("wrong", ["photos", None, 3, [], PIXELS, {"a": torch.ones(2)}, [1, 2], Path("x")])
def test_all_else_is_refused_in_one_line(wrong: object) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    expected = "at least one sample" if wrong == [] else r"an assay.ImageDataset \(assay.load_dataset\(PATH\) makes one"
    with pytest.raises(DataError, match=f"expected {expected}"):
        assay.measure_clean_accuracy(model, wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError):
        as_dataset(wrong)


class Normalize:
    """As torchvision's."""

    def __init__(self, mean: object = MEAN, std: object = STD) -> None:
        self.mean, self.std = mean, std

    def __call__(self, image: Tensor) -> Tensor:
        mean, std = (torch.as_tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (image - mean) / std


class Compose:
    def __init__(self, *transforms: Callable[[Any], Any]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


def test_a_normalisation_found_in_the_transform_is_taken_back() -> None:
    data = as_dataset(Subset(Pictures(Compose(to_tensor, Normalize())), range(N)))
    assert torch.equal(data.images, PIXELS)
    assert any("found in the transform" in note and "0.485" in note for note in data.notes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_stated_normalisation_is_taken_back(dtype: torch.dtype) -> None:
    data = as_dataset((normalised(dtype), LABELS), mean=MEAN, std=STD)
    assert torch.equal(data.images, PIXELS)
    assert any("as stated" in note for note in data.notes)


def test_normalised_pixels_are_never_guessed() -> None:
    with pytest.raises(DataError, match=r"data\[0\]: expected floating pixels in \[0, 1\].*state by what"):
        as_dataset((normalised(), LABELS))
    with pytest.raises(DataError, match=r"take back to \[0, 1\], got -"):
        as_dataset((normalised(), LABELS), mean=0.5, std=0.5)
    shifted = (PIXELS / 255 - 0.5) / 0.5
    with pytest.raises(DataError, match=r"take back to the levels 0..255, got pixels between them, by up to 0\.\d+"):
        as_dataset((shifted, LABELS), mean=MEAN, std=STD)
    two = Compose(to_tensor, Normalize(), Normalize((0.5,) * 3, (0.5,) * 3))
    with pytest.raises(DataError, match="state by what"):
        as_dataset(Pictures(two))
    with pytest.raises(OptionError, match="std: expected mean and std together"):
        as_dataset((normalised(), LABELS), mean=MEAN)
    with pytest.raises(OptionError, match="got whole numbers only"):
        as_dataset((PIXELS, LABELS), mean=MEAN, std=STD)
    with pytest.raises(DataError, match="expected 3 channels"):
        as_dataset((normalised()[:, :1], LABELS), mean=MEAN, std=STD)


def test_what_lies_between_the_levels_is_rounded_and_told_with_the_largest_change() -> None:
    images = PIXELS / 255
    images[5, 0, 0, 0] = 100.25 / 255
    data = as_dataset((images, LABELS))
    assert data.images[5, 0, 0, 0] == 100
    (note,) = data.notes
    assert "0.00098 (0.25 of a level of 1/255); 1 of 24 pictures, data[5] the first" in note
    assert any("rounded" in note for note in as_dataset((PIXELS.bfloat16() / 255, LABELS)).notes)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PIXELS / 255 * torch.tensor(float("nan")), r"data\[0\]: expected finite pixels, got NaN"),
        (torch.cat([PIXELS[:4] / 255, PIXELS[4:].float()]), r"one scale of floating pixels, got 0..255 in data\[4\]"),
        (PIXELS.long() + 1, "expected whole pixels in 0..255"),
        (PIXELS.numpy()[:, :, :, :3], "which could be either"),
        (PIXELS[:, :0], "a picture: of PIL, an array, a tensor"),
        (PIXELS[:7], "expected a label for each of 7 images, got 24 labels"),
    ],
)
def test_arrays_without_one_meaning_are_refused(images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_dataset((images, LABELS))


def test_zeros_and_ones_mean_what_the_whole_set_says() -> None:
    masks = (PIXELS > 99).long()
    data = as_dataset((masks, LABELS))
    assert torch.equal(data.images, (masks * 255).byte())
    assert any("black and white" in note for note in data.notes)
    mixed = PIXELS.float()
    mixed[0] = mixed[0] > 99
    assert torch.equal(as_dataset((mixed, LABELS)).images, mixed.byte())
    with pytest.raises(DataError, match="each picture can be resized by itself"):
        as_dataset((masks, LABELS), image_size=4)


def test_random_transforms_and_changing_orders_are_refused() -> None:
    class RandomNoise:
        def __call__(self, image: Tensor) -> Tensor:
            return image * torch.rand(1)

    with pytest.raises(DataError, match=r"Pictures\[0\]: expected the same sample at each reading.*RandomNoise"):
        as_dataset(Pictures(Compose(to_tensor, RandomNoise())))
    with pytest.raises(DataError, match=r"Stream\[\d\]: expected the same sample at each reading"):
        as_dataset(Stream(lambda: torch.randperm(N).tolist()))


class Random(Compose):
    """A transform with a name as of a random one, which changes nothing."""


def test_transforms_that_may_be_random_are_told() -> None:
    (note,) = as_dataset(Pictures(Random(to_tensor))).notes
    assert "transforms that may be random: Random; two readings of 8 samples were equal" in note


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda: DataLoader(Pictures(), sampler=WeightedRandomSampler([1.0] * N, N)), "with replacement"),
        (lambda: DataLoader(Pictures(), sampler=RandomSampler(Pictures(), num_samples=5)), "draws 5 of 24 samples"),
        (lambda: DataLoader(Subset(Pictures(), [4, 7, 4])), "each sample once, got sample 4 2 times"),
        (lambda: DataLoader(Pictures(), sampler=[0, 1, 1, 2]), "each sample once, got sample 1 2 times"),
        (lambda: DataLoader(Pictures(), batch_size=50, drop_last=True), "got none: drop_last leaves out all 24"),
        (lambda: DataLoader(Pictures(), collate_fn=lambda _: 1 / 0), "a batch of one sample, got ZeroDivisionError"),
    ],
)
def test_loaders_that_do_not_give_each_sample_once_are_refused(loader: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_dataset(loader())


def test_what_of_a_loader_is_not_followed_is_told() -> None:
    data = as_dataset(DataLoader(Pictures(), batch_size=7, shuffle=True, drop_last=True))
    assert data.notes == (
        "DataLoader: it shuffles: read in the order of its data set",
        "DataLoader: drop_last leaves out 3 of its samples: they are read as well",
    )
    assert as_dataset(DataLoader(Pictures(), sampler=[5, 3, 8])).ids.tolist() == [5, 3, 8]
    assert as_dataset(DataLoader(Pictures(), sampler=SubsetRandomSampler([5, 3, 8]))).ids.tolist() == [3, 5, 8]
    batches = as_dataset(DataLoader(Pictures(), batch_sampler=[[4, 2], [9]]))
    assert batches.ids.tolist() == [4, 2, 9]
    workers = as_dataset(DataLoader(Stream(), num_workers=2))
    assert len(workers) == N
    assert "read in one process, not by its 2 workers" in workers.notes[0]


def test_a_function_of_a_loader_that_makes_batches_is_called() -> None:
    data = as_dataset(DataLoader(Pictures(), collate_fn=as_torch), classes=("a", "b", "c"))
    assert torch.equal(data.images, PIXELS)
    assert set(data.labels.tolist()) == {0}


class Columns:
    """As a data set of Hugging Face: features by name, and items that are dicts."""

    class Image: ...

    class ClassLabel:
        names = ("ant", "bee", "cat")

    class Value: ...

    def __init__(self, **features: Any) -> None:
        self.features = features or {
            "photo": self.Image(), "label": self.ClassLabel(), "site": self.Value(), "box": self.Value()
        }  # fmt: skip
        self.format = {"type": None}
        self.info = SimpleNamespace(dataset_name="insects")
        self.split = "validation"
        self.column_names = list(self.features)

    def with_format(self, kind: str | None) -> Columns:
        assert kind is None
        return self

    def __len__(self) -> int:
        return N

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return LABELS.tolist()
        return {"photo": pil(key), "label": int(LABELS[key]), "site": f"s{key % 2}", "box": [1, 2]}


def test_columns_of_hugging_face_become_classes_and_metadata() -> None:
    data = as_dataset(Columns())
    assert (data.name, data.split, data.classes) == ("insects", "validation", ("ant", "bee", "cat"))
    assert torch.equal(data.images, PIXELS)
    assert data.metadata["site"].tolist() == [f"s{place % 2}" for place in range(N)]
    assert data.notes == ("insects: left out box, which holds more than one value a sample",)
    with pytest.raises(DataError, match=r"a label among the features.*got photo \(Image\), where \(Value\)"):
        as_dataset(Columns(photo=Columns.Image(), where=Columns.Value()))
    with pytest.raises(OptionError, match="split: expected validation, as the object says"):
        as_dataset(Columns(), split="train")


def test_the_library_of_hugging_face_itself() -> None:
    hub = pytest.importorskip("datasets")
    names = ("ant", "bee", "cat")
    features = hub.Features(
        {"image": hub.Image(), "label": hub.ClassLabel(names=list(names)), "site": hub.Value("string")}
    )
    columns = {"image": [pil(i) for i in range(N)], "label": LABELS.tolist(), "site": ["x", None] * (N // 2)}
    whole = hub.Dataset.from_dict(columns, features=features)
    both = hub.DatasetDict({"train": whole.select(range(5)), "test": whole})
    transformed = whole.with_transform(
        lambda batch: {"pixel_values": [to_tensor(each) for each in batch["image"]], "labels": batch["label"]}
    )
    for obj in (whole, whole.with_format("torch"), whole.to_iterable_dataset(), both, transformed):
        data = as_dataset(obj)
        assert torch.equal(data.images, PIXELS)
        assert data.classes == names
    assert as_dataset(whole).metadata["site"].tolist()[:2] == ["x", None]


def test_folders_of_torchvision_are_those_of_assay(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    for place in range(N):
        folder = tmp_path / f"class {place % 3}"
        folder.mkdir(exist_ok=True)
        pil(place).save(folder / f"{place:02}.png")
    theirs = as_dataset(torchvision.datasets.ImageFolder(tmp_path))
    ours = assay.load_dataset(tmp_path).arranged(theirs.ids)
    assert torch.equal(theirs.images, ours.images)
    assert torch.equal(theirs.labels, ours.labels)
    assert (theirs.classes, theirs.filenames) == (ours.classes, ours.filenames)
    assert theirs.read_again is not None
    again = theirs.read_again(Preparation.square(4), torch.tensor([9, 2]))
    assert again.ids.tolist() == [9, 2]
    assert torch.equal(again.images, assay.load_dataset(tmp_path, image_size=4).arranged(again.ids).images)


def test_names_of_classes_are_not_those_of_changed_labels() -> None:
    obj = Pictures(classes=["ant", "bee", "cat"], target_transform=lambda label: label, targets=LABELS.tolist())
    data = as_dataset(obj)
    assert data.classes == ("0", "1", "2")
    assert "names of classes are not used" in data.notes[0]
    assert as_dataset(Pictures(classes=["ant", "bee", "cat"])).classes == ("ant", "bee", "cat")
    assert as_dataset(Pictures(num_classes=5)).classes == ("0", "1", "2", "3", "4")
    assert as_dataset(Pictures(), classes=("x", "y", "z")).classes == ("x", "y", "z")


def test_a_limit_is_a_fair_choice_with_the_classes_of_all() -> None:
    order = LABELS.argsort(stable=True)
    known = as_dataset(TensorDataset(PIXELS[order], LABELS[order]), limit=6)
    assert known.labels.bincount().tolist() == [2, 2, 2]
    unknown = as_dataset(Pictures(), limit=6)
    assert len(unknown) == 6
    assert "6 of 24 samples were drawn at random, by a fixed seed" in unknown.notes[0]
    assert torch.equal(unknown.images, PIXELS[unknown.ids])
    by_class = as_dataset(Stream(order.tolist), limit=10, classes=("a", "b", "c"))
    assert any("ordered by class, of which the first 10" in note for note in by_class.notes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5] * N, r"labels\[0\]: expected a class number or a class name, got 0.5"),
        ([0, 1, None] * 8, r"labels\[2\]: expected a class number or a class name, got none"),
        ([0, "a", 1] * 8, r"labels\[1\]: expected int, as the first"),
        ([[0.5, 0.5]] * N, "more than one label an image"),
        ([3] * N, "labels of at least two classes, got only 3"),
    ],
)
def test_labels_of_no_use_are_refused(labels: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_dataset((PIXELS, labels))


def test_pictures_of_several_sizes_are_refused_or_resized() -> None:
    pictures = [(Image.new("RGB", (8, 6), "red"), 0), (Image.new("RGB", (9, 6), "blue"), 1)]
    with pytest.raises(DataError, match=r"data\[1\]: expected 8x6 pixels as in data\[0\], or a size .*got 9x6"):
        as_dataset(pictures)
    assert as_dataset(pictures, image_size=4).shape == (3, 4, 4)
    assert as_dataset([(np.asarray(each), label) for each, label in pictures], prepare="squash=5x5").shape == (3, 5, 5)
    grey = as_dataset([(Image.new("L", (8, 6), 99), 0), *pictures[:1], (Image.new("RGB", (8, 6)), 1)])
    assert "grey pictures among those in colour: taken as three equal channels" in grey.notes[0]
    with pytest.raises(DataError, match="pictures of as many channels, got 2 and 3"):
        as_dataset([(PIXELS[0], 0), (PIXELS[1, :2], 1)])


def test_what_a_set_raises_is_one_line_with_the_place() -> None:
    def fail(picture: Image.Image) -> Tensor:
        if picture.getpixel((0, 0)) == pil(7).getpixel((0, 0)):
            raise RuntimeError("the file is gone")
        return to_tensor(picture)

    with pytest.raises(DataError, match=r"Pictures\[7\]: expected a sample that can be read, got RuntimeError: the"):
        as_dataset(Pictures(fail))
    with pytest.raises(DataError, match="indices"):
        as_dataset(Subset(Pictures(), [3, N]))
    with pytest.raises(DataError, match=r"expected \(image, label\), or a dict.*got Tensor"):
        as_dataset(TensorDatasetOfOne())


class TensorDatasetOfOne(Dataset[Any]):
    def __len__(self) -> int:
        return N

    def __getitem__(self, place: int) -> Tensor:
        return PIXELS[place]


def test_a_data_set_stays_itself_and_takes_no_options() -> None:
    data = ImageDataset(PIXELS, LABELS, ("0", "1", "2"))
    assert as_dataset(data) is data
    with pytest.raises(OptionError, match="limit: no effect on an ImageDataset"):
        as_dataset(data, limit=3)


def test_streams_longer_than_the_first_space_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.data.objects.FIRST_SPACE", 5)
    once = ((image, int(label)) for image, label in zip(PIXELS, LABELS, strict=True))

    class Once(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return once

    assert torch.equal(as_dataset(Once()).images, PIXELS)
