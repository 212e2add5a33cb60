from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assay.data.pictures import decode
from assay.data.sources import load_dataset
from assay.data.sources.paths import expand_braces
from assay.errors import DataError


def write(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path: Path, make_png: Callable[..., bytes]) -> Path:
    for shard in range(3):
        members = []
        for index in range(4):
            key = f"{shard:02d}{index:04d}"
            members += [(f"{key}.png", make_png(4 * shard + index)), (f"{key}.cls", str((shard + index) % 3).encode())]
        write(tmp_path / f"x-{shard:03d}.tar", members)
    return tmp_path


def test_shards_are_read_one_after_the_other(shards: Path, make_png: Callable[..., bytes]) -> None:
    dataset = load_dataset(f"{shards}/x-{{000..002}}.tar")
    assert (len(dataset), dataset.split, dataset.name) == (12, "all", "x-{000..002}.tar")
    assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert dataset.filenames[5] == "010001"
    expected = [decode(make_png(seed)).transpose(2, 0, 1) for seed in range(12)]
    assert np.array_equal(dataset.images.numpy(), np.stack(expected))


def test_a_limit_decodes_no_other_sample(shards: Path, make_png: Callable[..., bytes]) -> None:
    write(shards / "x-001.tar", [("a.png", b"broken"), ("a.cls", b"0")])
    assert load_dataset(f"{shards}/x-*.tar", limit=4).ids.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"x-001.tar:a: expected a readable image"):
        load_dataset(f"{shards}/x-*.tar", limit=5)
    assert load_dataset(f"{shards}/x-*.tar", max_bad=1).ids.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w"])
def test_compressed_shards_and_classes_laid_out_one_by_one(
    tmp_path: Path, make_png: Callable[..., bytes], mode: str
) -> None:
    members = []
    for index in range(6):
        members += [(f"s/{index}.png", make_png(index)), (f"s/{index}.cls", str(index // 3).encode())]
    path = write(tmp_path / "a.tar", members, mode)
    part = load_dataset(str(path), limit=4)
    assert part.ids.tolist() == [0, 3, 1, 4]
    assert np.array_equal(part.images[1].numpy(), decode(make_png(3)).transpose(2, 0, 1))


def test_labels_as_text_and_json_and_class_names_beside_the_shards(
    tmp_path: Path, make_png: Callable[..., bytes]
) -> None:
    text = [("1.png", make_png()), ("1.cls", b"dog\n"), ("2.png", make_png()), ("2.cls", b"cat")]
    dataset = load_dataset(str(write(tmp_path / "a.tar", text)))
    assert (dataset.classes, dataset.labels.tolist()) == (("cat", "dog"), [1, 0])
    lines = [("1.jpg.png", make_png()), ("1.json", json.dumps({"label": 2, "note": "x"}).encode())]
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncow\n")
    dataset = load_dataset(str(write(tmp_path / "a.tar", lines)))
    assert (dataset.classes, dataset.labels.tolist()) == (("ant", "bee", "cow"), [2])


def test_a_photograph_is_taken_and_not_its_mask(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    members = []
    for index, (first, second) in enumerate([("jpg", "mask.png"), ("seg.png", "jpg"), ("mask.png", "jpg")]):
        pictures = {"jpg": make_png(index), "mask.png": make_png(mode="L"), "seg.png": make_png(mode="L")}
        members += [(f"{index:04d}.{ending}", pictures[ending]) for ending in (first, second)]
        members.append((f"{index:04d}.cls", str(index % 2).encode()))
    dataset = load_dataset(str(write(tmp_path / "a.tar", members)))
    assert np.array_equal(dataset.images[2].numpy(), decode(make_png(2)).transpose(2, 0, 1))
    assert dataset.notes == ("a.tar: left out 3 further pictures (0000.mask.png, 0001.seg.png, 0002.mask.png)",)
    members.append(("0003.mask.png", make_png()))  # its photograph is missing: the mask does not take its place
    members.append(("0003.cls", b"1"))
    with pytest.raises(DataError, match=r"a.tar:0003: expected a readable image .* no bytes of a picture"):
        load_dataset(str(write(tmp_path / "a.tar", members)))


@pytest.mark.parametrize("endings", [("jpg", "png"), ("image.png", "mask.png"), ("1.png", "2.png")])
def test_two_pictures_that_could_be_meant_are_named(
    tmp_path: Path, make_png: Callable[..., bytes], endings: tuple[str, str]
) -> None:
    members = [(f"{key}.{ending}", make_png()) for key in "ab" for ending in endings]
    members += [("a.cls", b"0"), ("b.cls", b"1")]
    with pytest.raises(
        DataError, match=rf"a.tar:a: expected one picture a sample, got a.{endings[0]} and a.{endings[1]}"
    ):
        load_dataset(str(write(tmp_path / "a.tar", members)))


def test_a_file_that_comes_twice_is_refused(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    members = [("a.png", make_png(1)), ("a.cls", b"0"), ("a.png", make_png(2)), ("b.png", make_png()), ("b.cls", b"1")]
    with pytest.raises(DataError, match=r"a.tar:a: expected one .png a sample, got several"):
        load_dataset(str(write(tmp_path / "a.tar", members)))


def test_the_files_of_a_sample_need_not_follow_one_another(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    members = [("a.png", make_png(1)), ("b.png", make_png(2)), ("a.cls", b"1"), ("b.cls", b"0")]
    assert load_dataset(str(write(tmp_path / "a.tar", members))).labels.tolist() == [1, 0]


def test_keys_that_several_shards_have_stay_apart_and_are_told(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    for shard in "xy":
        write(
            tmp_path / f"{shard}.tar", [("a.png", make_png()), ("a.cls", b"0"), ("b.png", make_png()), ("b.cls", b"1")]
        )
    dataset = load_dataset(f"{tmp_path}/*.tar")
    assert dataset.filenames == ("x.tar:a", "x.tar:b", "y.tar:a", "y.tar:b")
    assert any("2 keys are in several shards, each a sample: a, b" in note for note in dataset.notes)


def test_labels_and_names_may_begin_with_a_byte_order_mark(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    (tmp_path / "classes.txt").write_bytes("cat\r\ndog\r\n".encode("utf-16"))
    members = [("a.png", make_png()), ("a.cls", b"\xef\xbb\xbfdog\r\n"), ("b.png", make_png()), ("b.txt", b"note")]
    members += [("b.json", b'\xef\xbb\xbf{"label": "cat"}'), ("._a.png", b"x"), ("__MACOSX/a.png", b"x")]
    dataset = load_dataset(str(write(tmp_path / "a.tar", members)))
    assert (dataset.classes, dataset.labels.tolist()) == (("cat", "dog"), [1, 0])
    assert dataset.notes == ("a.tar: left out 1 neither picture nor label (b.txt); 2 hidden (._a.png, __MACOSX/a.png)",)
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    with pytest.raises(
        DataError, match=r"classes.txt: expected the name of a class in every line, got an empty line 2"
    ):
        load_dataset(str(tmp_path / "a.tar"))


def test_a_label_is_taken_by_its_ending_and_not_by_its_place(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    members = [
        ("a.json", b'{"label": 0}'),
        ("a.png", make_png()),
        ("a.cls", b"1"),
        ("b.png", make_png()),
        ("b.cls", b"0"),
    ]
    assert load_dataset(str(write(tmp_path / "a.tar", members))).labels.tolist() == [1, 0]


def test_a_split_that_lacks_a_class_numbers_the_others_as_the_whole(
    tmp_path: Path, make_png: Callable[..., bytes]
) -> None:
    for name, labels in (("train.tar", "abc"), ("test.tar", "cb")):
        write(
            tmp_path / name,
            [
                (f"{i}.{end}", make_png() if end == "png" else label.encode())
                for i, label in enumerate(labels)
                for end in ("png", "cls")
            ],
        )
    dataset = load_dataset(str(tmp_path))
    assert (dataset.classes, dataset.labels.tolist()) == (("a", "b", "c"), [2, 1])
    assert dataset.notes == (f"{tmp_path.name} (labels): no sample of 1 of the 3 classes: a",)


def test_a_folder_of_shards_is_split_by_name(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    for name, label in [("train-0.tar", b"0"), ("train-1.tar", b"1"), ("test-0.tar", b"1")]:
        write(tmp_path / name, [("1.png", make_png()), ("1.cls", label), ("2.png", make_png()), ("2.cls", b"0")])
    assert load_dataset(str(tmp_path)).labels.tolist() == [1, 0]
    assert load_dataset(str(tmp_path), split="train").labels.tolist() == [0, 0, 1, 0]


def test_nothing_is_written_wherever_members_point(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    members = [("../../evil.png", make_png()), ("../../evil.cls", b"1")]
    members += [("/etc/evil.png", make_png()), ("/etc/evil.cls", b"0")]
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(write(inner / "a.tar", members), "a") as tar:
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    assert len(load_dataset(str(inner / "a.tar"))) == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", b"x")], r"a.tar:1: expected a label \(cls, class, label, json\), got none"),
        ([("1.png", b"x"), ("1.cls", b" ")], r"a.tar:1: expected a label"),
        ([("1.png", b"x"), ("1.json", b"{")], r"a.tar:1: expected a label"),
        ([("readme.md", b"x")], "expected samples with a picture and a label, got none"),
        ([("1.cls", b"0"), ("2.cls", b"1")], "1: expected a readable image .*, got there are no bytes of a picture"),
        ([("1.png", b"x"), ("1.cls", b"0")], "labels of at least two classes, got only 0"),
    ],
    ids=["no label", "empty label", "bad json", "nothing", "no picture", "one class"],
)
def test_names_what_is_wrong(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(str(write(tmp_path / "a.tar", members)))


def test_truncated_anywhere_is_an_error_not_a_smaller_set(shards: Path) -> None:
    content = (shards / "x-000.tar").read_bytes()
    end = len(content.rstrip(b"\0"))
    path = shards / "cut.tar"
    for length in [*range(0, end, 211), *range(0, end, 512)]:
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="cut.tar: expected a readable tar archive"):
            load_dataset(str(path))


def test_a_missing_shard_is_named(shards: Path) -> None:
    with pytest.raises(
        DataError, match=r"x-003.tar: expected a file or a folder, got nothing there; did you mean .*x-00"
    ):
        load_dataset(f"{shards}/x-{{000..003}}.tar")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("x-{008..011}.tar", ["x-008.tar", "x-009.tar", "x-010.tar", "x-011.tar"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
    ],
)
def test_braces(pattern: str, expected: list[str]) -> None:
    assert expand_braces(pattern) == expected


@pytest.mark.parametrize("pattern", ["x-{5..2}", "x-{0..999999999}"])
def test_absurd_ranges_are_refused(pattern: str) -> None:
    with pytest.raises(DataError, match="expected a range that rises by less than 100,000"):
        expand_braces(pattern)
