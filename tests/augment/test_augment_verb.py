"""``assay augment``: files out, one clear line for bad input."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from assay.cli.augment import parse_magnitudes, read_picture
from assay.cli.main import app
from assay.errors import AssayError, DataError, OptionError


def run(*arguments):
    result = CliRunner().invoke(app, ["augment", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def photograph(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    path = tmp_path / "photograph.png"
    Image.fromarray(pixels).save(path)
    return path


def test_a_picture_becomes_a_page_or_a_sheet(photograph, tmp_path):
    assert "86 pictures" in run(photograph, "--out", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<figure") == 86
    run(photograph, "--no-sweep", "--out", tmp_path / "sheet.png", "-m", "rotate=45", "-m", "equalize")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] == 1680


def test_a_policy_is_shown_on_samples_of_a_data_set(tmp_path):
    output = run(
        "--policy", "crop(4) + rotate(-30, 30)", "--data", "digits", "--samples", 3, "--out", tmp_path / "p.html"
    )
    assert "24 pictures" in output
    page = (tmp_path / "p.html").read_text()
    assert page.count("original") >= 3
    assert "Rotate" in page


def test_a_policy_is_shown_on_one_picture_too(photograph, tmp_path):
    output = run(photograph, "--policy", "autoaugment", "--draws", 4, "--out", tmp_path / "p.png")
    assert output == f"{tmp_path / 'p.png'}: 5 pictures\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "IMAGE: expected a picture file, or --data, got neither"),
        (("missing.png",), "missing.png: expected a picture file, got no such file"),
        (("--data", "digits", "--out", "x.gif"), "--out: expected a name that ends in .html or .png, got x.gif"),
        (("--data", "digits", "-m", "rotate"), r"--magnitude: expected rotate=VALUE \(°\), got rotate"),
        (("--data", "digits", "-m", "rotate=far"), "--magnitude: expected NAME=VALUE, as in rotate=45, got rotate=far"),
        (("--data", "digits", "-m", "posterize=9"), r"magnitude of Posterize: expected 0..8 \(bits\), got 9"),
        (("--data", "digits", "-m", "swirl=1"), "operation: expected one of Identity.*got 'swirl'"),
        (("--data", "digits", "--policy", "randaugmnt"), "--policy: expected one of .*, got 'randaugmnt'"),
        (("--data", "digits", "--policy", "flip", "-m", "rotate=1"), "--magnitude: expected no magnitudes"),
        (("--data", "digits", "--out", "no/such/folder/x.html"), "x.html: cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_nothing_is_written(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssayError, match=message):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_exit_code_of_bad_input_is_2(tmp_path):
    command = [sys.executable, "-m", "assay", "augment", "missing.png"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr == "assay: missing.png: expected a picture file, got no such file\n"


def test_files_that_are_no_pictures_are_refused(tmp_path, photograph):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match="expected a picture file, got a file that is no picture"):
        read_picture(tmp_path / "text.png")
    (tmp_path / "cut.png").write_bytes(photograph.read_bytes()[:200])
    with pytest.raises(DataError, match="expected a readable picture file"):
        read_picture(tmp_path / "cut.png")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 3), ("P", 3), ("1", 1)])
def test_pictures_of_other_modes_become_grey_or_rgb(mode, channels, tmp_path):
    Image.new(mode, (5, 4)).save(tmp_path / "x.png")
    assert read_picture(tmp_path / "x.png").shape == (channels, 4, 5)


def test_grey_of_16_bits_is_scaled_and_floating_point_refused(tmp_path):
    Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "deep.png").tolist() == [[[0, 128, 255]]]
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="got floating-point pixels have no known scale"):
        read_picture(tmp_path / "float.tif")


def test_magnitudes_are_read_by_name():
    assert parse_magnitudes(["rotate=45", "shear_x=-0.2", "equalize"]) == {"Rotate": 45, "ShearX": -0.2, "Equalize": 0}
    with pytest.raises(OptionError):
        parse_magnitudes(["=3"])
