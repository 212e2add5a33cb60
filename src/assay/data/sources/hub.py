"""Sets on the public hub, ``hf:owner/name``: their Parquet files, fetched by the hub's own client into its cache."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from assay.data.dataset import ImageDataset
from assay.data.reading import Reading, choose_split, split_of, split_of_path
from assay.data.sources.parquet import load_parquet
from assay.errors import DataError, DependencyError

Reply = TypeVar("Reply")
SPEC = re.compile(r"hf:(?P<repository>[\w.-]+(/[\w.-]+)?)(:(?P<part>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
CONVERTED = "refs/convert/parquet"  # where the hub keeps its own Parquet edition of sets stored otherwise


def load_hub(spec: str, *, reading: Reading) -> ImageDataset:
    """``hf:owner/name``, ``hf:owner/name:configuration`` or ``hf:owner/name@revision``.

    Raises :class:`DependencyError` without ``huggingface-hub``, :class:`DataError` when the set is not there, has no
    Parquet files, or has several configurations and none is named.
    """
    match = SPEC.fullmatch(spec)
    if match is None:
        raise DataError(spec, expected="hf:owner/name, hf:owner/name:configuration or hf:owner/name@revision", got=spec)
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ImportError:
        raise DependencyError("huggingface-hub", extra="hub", purpose=f"reading {spec}") from None
    repository, part, revision = match.group("repository", "part", "revision")
    files, revision = _call_hub(lambda: _list_tables(HfApi(), repository, revision), where=spec)
    if not files:
        raise DataError(spec, expected="Parquet files on the hub", got="a set without any")
    split, chosen = choose_tables(files, part=part, wanted=reading.split, where=spec)
    paths = [
        _call_hub(lambda: Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision)), where=spec)  # noqa: B023
        for file in chosen
    ]
    return load_parquet(paths, name=repository, split=split, reading=reading)


def _call_hub(request: Callable[[], Reply], *, where: str) -> Reply:
    try:
        return request()
    except Exception as error:  # the client raises its own, the HTTP library's and the system's errors
        reason = " ".join(str(error).split())[:160]
        raise DataError(where, expected="a data set on the hub", got=f"{type(error).__name__}: {reason}") from None


def _list_tables(api: object, repository: str, revision: str | None) -> tuple[list[str], str | None]:
    """The Parquet files of the set, or of the hub's own Parquet edition of it; and the revision they are in."""
    for tried in dict.fromkeys((revision, revision or CONVERTED)):
        names = api.list_repo_files(repository, repo_type="dataset", revision=tried)  # type: ignore[attr-defined]
        files = sorted(str(name) for name in names if str(name).endswith(".parquet"))
        if files:
            return files, tried
    return [], revision


def choose_tables(files: list[str], *, part: str | None, wanted: str, where: str) -> tuple[str, list[str]]:
    """The wanted split's files of one configuration; the folder that is not a split's name is the configuration."""
    by_part: dict[str, dict[str, list[str]]] = {}
    for file in files:
        folders = [folder for folder in PurePosixPath(file).parts[:-1] if split_of(folder) is None]
        split = split_of_path(Path(file), root=Path()) or "all"
        by_part.setdefault("/".join(folders), {}).setdefault(split, []).append(file)
    names = ", ".join(sorted(by_part))
    if part is None and len(by_part) > 1:
        expected = f"one configuration, such as hf:owner/name:{min(by_part)}"
        raise DataError(where, expected=expected, got=f"several: {names}")
    if part is not None and part not in by_part:
        raise DataError(where, expected=f"one of the configurations {names}", got=part)
    return choose_split(by_part[min(by_part) if part is None else part], wanted=wanted, where=where)
