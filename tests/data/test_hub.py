from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.data.sources import load_dataset
from assay.data.sources.hub import choose_tables
from assay.errors import DataError, DependencyError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str | None]]]:
    """Put a client in place that serves files from the test's folder; returns what was asked for."""

    def install(files: dict[str | None, list[str]]) -> list[tuple[str, str | None]]:
        asked: list[tuple[str, str | None]] = []

        class HfApi:
            def list_repo_files(self, repository: str, *, repo_type: str, revision: str | None) -> list[str]:
                assert (repository, repo_type) == ("owner/name", "dataset")
                if revision not in files:
                    raise ConnectionError("no such revision")
                return files[revision]

        def hf_hub_download(repository: str, file: str, *, repo_type: str, revision: str | None) -> str:
            asked.append((file, revision))
            return str(tmp_path / file)

        client = types.ModuleType("huggingface_hub")
        client.HfApi, client.hf_hub_download = HfApi, hf_hub_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", client)
        return asked

    return install


def test_only_the_wanted_split_is_fetched(
    tmp_path: Path, hub: Callable[..., list[object]], make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "test-0.parquet", [make_png(), make_png()], [1, 0], ("ant", "bee"))
    asked = hub({None: ["README.md", "data/train-0.parquet", "data/test-0.parquet"]})
    dataset = load_dataset("hf:owner/name", limit=1)
    assert (dataset.name, dataset.split, dataset.labels.tolist()) == ("owner/name", "test", [1])
    assert asked == [("data/test-0.parquet", None)]


def test_the_hubs_own_parquet_edition_is_the_second_choice(
    tmp_path: Path, hub: Callable[..., list[object]], make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    (tmp_path / "default" / "test").mkdir(parents=True)
    write_parquet(tmp_path / "default" / "test" / "0000.parquet", [make_png(), make_png()], [1, 0], ("ant", "bee"))
    asked = hub({None: ["script.py"], "refs/convert/parquet": ["default/test/0000.parquet"]})
    assert len(load_dataset("hf:owner/name")) == 2
    assert asked == [("default/test/0000.parquet", "refs/convert/parquet")]


def test_a_set_that_is_not_there_or_has_no_tables_is_named(hub: Callable[..., list[object]]) -> None:
    hub({"main": []})
    with pytest.raises(
        DataError, match=r"^hf:owner/name: expected a data set on the hub, got ConnectionError: no such"
    ):
        load_dataset("hf:owner/name")
    with pytest.raises(
        DataError, match=r"^hf:owner/name@main: expected Parquet files on the hub, got a set without any"
    ):
        load_dataset("hf:owner/name@main")


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"reading hf:owner/name needs .*: pip install 'assay\[hub\]'"):
        load_dataset("hf:owner/name")


@pytest.mark.parametrize("spec", ["hf:", "hf:a/b/c", "hf:a b", "hf:a/b:c/../d", "hf:../../etc"])
def test_a_name_of_another_form_is_refused(spec: str) -> None:
    with pytest.raises(DataError, match="expected hf:owner/name"):
        load_dataset(spec)


def test_configurations() -> None:
    files = ["en/train-0.parquet", "en/test-0.parquet", "de/test-0.parquet"]
    assert choose_tables(files, part="en", wanted="test", where="x") == ("test", ["en/test-0.parquet"])
    with pytest.raises(DataError, match="x: expected one configuration, such as hf:owner/name:de, got several: de, en"):
        choose_tables(files, part=None, wanted="test", where="x")
    with pytest.raises(DataError, match="x: expected one of the configurations de, en, got fr"):
        choose_tables(files, part="fr", wanted="test", where="x")
    with pytest.raises(DataError, match="x: expected a 'train' split, got only test"):
        choose_tables(files, part="de", wanted="train", where="x")
    folders = ["default/train/0000.parquet", "default/test/0000.parquet", "default/test/0001.parquet"]
    assert choose_tables(folders, part=None, wanted="test", where="x")[1] == folders[1:]
