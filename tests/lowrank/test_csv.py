"""A matrix in a text file: every spelling gives the same numbers, or one line that names the cell."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from assay.errors import DataError
from assay.lowrank.sources import open_matrix


def read(content: bytes) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        path.write_bytes(content)
        return np.concatenate([block.numpy() for block in open_matrix(path).blocks()])


numbers = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6, allow_nan=False, width=32),
)


@settings(max_examples=60)
@given(
    numbers,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
    st.integers(0, 2),
)
def test_every_spelling_of_the_same_numbers_gives_them(
    matrix: np.ndarray, encoding: str, end: str, delimiter: str, quoting: int, names: bool, empty: int
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    text.write(end * empty)
    if names:
        writer.writerow([f"größe {delimiter}{column}" for column in range(matrix.shape[1])])
    writer.writerows(matrix.tolist())
    text.write(end * empty)
    assert np.array_equal(read(text.getvalue().encode(encoding)), matrix)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,5;2,5\n3,5;4,5\n", "row 1, column 1: expected a number, got 1,5: decimals need a point"),
        ('"1,5","2,5"\n', "row 1, column 1: expected a number, got 1,5: decimals need a point"),
        ("a,b\n1,2\n3,x\n", "row 3, column 2: expected a number, got x"),
        ("1,2.O\n3,4\n", "row 1, column 2: expected a number, got 2.O"),  # no row of names, but a slip
        ("2019,2020,all\n1,2,3\n", "row 1, column 3: expected a number, got all"),
        (",0,1\n0,1,2\n", "row 1, column 1: expected a number, got an empty cell"),
        (",a,b\n0,1,2\n", "row 1, column 1: expected a name for every column, .*, got an empty name"),
        ("a,b\nc,d\n1,2\n", "row 2, column 1: expected a number, got c"),
        ("1,2,\n3,4,\n", "row 1, column 3: expected a number, got an empty cell"),
        ("1,2\n3\n", "row 2: expected 2 numbers, as above, got 1"),
        ("1_000,2\n", "row 1, column 1: expected a number, got 1_000"),
        ("1,2#3\n", "row 1, column 2: expected a number, got 2#3"),
        ("1 2\n3 4\n", "row 1, column 1: expected a number, got 1 2"),
        ("a,b\n", "rows: expected numbers parted by commas, got none"),
        ("", "rows: expected numbers parted by commas, got none"),
    ],
)
def test_what_is_no_matrix_is_one_line_naming_the_cell(content: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"x.csv: {message}"):
        read(content.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(DataError, match=r"x.csv: expected a readable .csv file"):
        read(b"1,2\n3,\xff\n")
