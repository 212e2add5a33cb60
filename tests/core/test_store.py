"""The store of finished pieces, and what tells two jobs apart."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from assay.data.dataset import ImageDataset
from assay.errors import DataError, OptionError, OutputError
from assay.runtime import store as store_module
from assay.runtime.store import IDENTITY, ResumableStore, check_same_identity, fingerprint, read_identity

ONE = {"model": "abc", "options": {"steps": 3, "size": (1, 2)}, "limit": None}
OTHER = {**ONE, "options": {"steps": 4, "size": (1, 2)}}


def claimed(folder: Path, identity: dict[str, object] = ONE, *, replace: bool = False) -> ResumableStore:
    store = ResumableStore(folder, identity)
    store.claim(replace=replace)
    return store


def test_pieces_are_there_for_the_next_run_of_the_same_job(tmp_path: Path) -> None:
    claimed(tmp_path / "new").write("a-piece", "text")
    again = claimed(tmp_path / "new")
    assert "a-piece" in again
    assert "another" not in again
    assert again.path("a-piece").read_text() == "text"
    assert read_identity(tmp_path / "new") == json.loads(json.dumps(ONE))


def test_pieces_of_another_job_are_refused_by_the_field_that_differs_or_replaced(tmp_path: Path) -> None:
    claimed(tmp_path).write("a", "text")
    with pytest.raises(OptionError, match=r"identity.json: options.steps: expected 3 as in the run to resume, got 4"):
        claimed(tmp_path, OTHER)
    assert "a" in ResumableStore(tmp_path, ONE)
    assert "a" not in claimed(tmp_path, OTHER, replace=True)
    assert read_identity(tmp_path)["options"]["steps"] == 4


@pytest.mark.parametrize("damage", [None, b"", b"[1]", b"\xff"])
def test_pieces_without_an_identity_are_trusted_by_nobody(tmp_path: Path, damage: bytes | None) -> None:
    claimed(tmp_path).write("a", "text")
    (tmp_path / IDENTITY).unlink() if damage is None else (tmp_path / IDENTITY).write_bytes(damage)
    with pytest.raises(DataError, match=r"identity.json: expected the identity of a resumable job, got"):
        claimed(tmp_path)
    assert "a" not in claimed(tmp_path, replace=True)


@pytest.mark.parametrize("deaths", range(1, 5))
def test_a_store_killed_while_it_changes_hands_never_shows_one_jobs_pieces_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    """Die before the n-th change on disk while the second job takes over from the first."""
    store = claimed(tmp_path)
    store.write("a", "of the first")
    store.write("b", "of the first")
    left = iter(range(deaths - 1))

    def dying(change):
        def change_or_die(*arguments, **options):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return change_or_die

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying(Path.unlink))
        patch.setattr(store_module, "write_atomically", dying(store_module.write_atomically))
        patch.setattr(store_module, "make_folder", lambda path: path)
        with suppress(KeyboardInterrupt):
            claimed(tmp_path, OTHER, replace=True)
    try:
        resumed = claimed(tmp_path, OTHER)
    except OptionError:
        return  # still the first job's
    assert "a" not in resumed
    assert "b" not in resumed


def test_a_closed_store_leaves_nothing_but_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("page")
    store = claimed(tmp_path / "partial")
    store.write("a", "text")
    (tmp_path / "partial" / ".a.json.0123.tmp").write_text("half of a pie")  # of a process that was killed
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder that can be written to"):
        claimed(tmp_path / "file" / "store")


def test_equal_identities_are_the_same_whatever_their_order() -> None:
    check_same_identity("here", {"a": 1, "b": {"c": [1]}}, {"b": {"c": [1]}, "a": 1})
    with pytest.raises(OptionError, match="here: b.d: expected None as in the run to resume, got 2"):
        check_same_identity("here", {"b": {"c": 1}}, {"b": {"c": 1, "d": 2}})


@pytest.fixture
def data() -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 5, 7), dtype=torch.uint8, generator=generator)
    return ImageDataset(images, torch.arange(50) % 2, ("a", "b"))


def test_a_fingerprint_changes_with_every_weight_buffer_pixel_label_id_and_option(data: ImageDataset) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    marks = [fingerprint(model=model, dataset=data, seed=0)]
    assert marks == [fingerprint(model=model, dataset=data.subset(torch.arange(50)), seed=0)]
    marks.append(fingerprint(model=model, dataset=data, seed=1))
    marks.append(fingerprint(model=model))
    marks.append(fingerprint(dataset=data))
    for tensor in (model[0].weight, model[1].running_var, model[1].num_batches_tracked):
        with torch.no_grad():
            tensor.view(-1)[-1] += 1
        marks.append(fingerprint(model=model, dataset=data, seed=0))
    for tensor in (data.images, data.labels, data.ids):
        tensor.view(-1)[-1] += 100 if tensor is data.ids else 1
        marks.append(fingerprint(model=model, dataset=data, seed=0))
    assert len(set(marks)) == len(marks)
    assert all(len(mark) == 64 for mark in marks)


def test_a_fingerprint_hangs_neither_on_layout_nor_on_the_size_of_a_chunk(
    data: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3)).to(memory_format=torch.channels_last)
    model.register_buffer("empty", torch.empty(0, 3))
    before = fingerprint(model=model, dataset=data)
    monkeypatch.setattr(store_module, "_CHUNK_BYTES", 64)
    assert fingerprint(model=model.to(memory_format=torch.contiguous_format), dataset=data) == before
    assert fingerprint(model=model.to(torch.bfloat16)) != fingerprint(model=model.float())


def classifier(activation: nn.Module, **settings: object) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), activation)
            self.__dict__.update(settings)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.body(images)

    return Net()


def test_models_of_equal_weights_are_told_apart_by_their_modules_settings_and_code() -> None:
    models = [
        classifier(nn.ReLU()),
        classifier(nn.Tanh()),
        classifier(nn.LeakyReLU(0.1)),
        classifier(nn.LeakyReLU(0.2)),
    ]
    models += [classifier(nn.ReLU(), scale=1.0), classifier(nn.ReLU(), scale=2.0)]
    marks = [fingerprint(model=model) for model in models]
    assert len(set(marks)) == len(marks)
    assert fingerprint(model=classifier(nn.ReLU())) == marks[0] == fingerprint(model=models[0].eval())

    class Net(type(models[0])):  # type: ignore[misc]
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return -self.body(images)

    twin = classifier(nn.ReLU())
    twin.__class__ = Net
    Net.__qualname__ = type(models[0]).__qualname__
    assert fingerprint(model=twin) != marks[0]


def test_parameters_without_a_shape_and_sparse_buffers_have_a_fingerprint() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    before = fingerprint(model=lazy)
    lazy(torch.zeros(1, 4))
    assert fingerprint(model=lazy) != before
    lazy.register_buffer("mask", torch.eye(3).to_sparse())
    assert len(fingerprint(model=lazy)) == 64
