"""Metadata as a record: compact, and back again without loss."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.data.dataset import ImageDataset, identify_samples
from assay.data.sample_records import MOST_TEXT, keep_metadata, measure_pixel_range
from assay.records.sample_table import SampleColumn, SampleTable

COLUMNS = {
    "text": st.one_of(st.none(), st.text(max_size=4)),
    "whole": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False),
    "truth": st.booleans(),
}


@pytest.mark.parametrize("kind", COLUMNS)
@given(st.data())
def test_columns_come_back(kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(COLUMNS[kind], max_size=20).map(lambda some: some * data.draw(st.integers(1, 3))))
    column = SampleColumn.of("x", values, type=kind)  # type: ignore[arg-type]
    again = SampleColumn.model_validate_json(column.model_dump_json())
    assert again == column
    assert again.unpack() == values
    assert [type(value) for value in again.unpack()] == [type(value) for value in values]


@pytest.mark.parametrize("distinct", [2, 256, 257, 70_000])
def test_codes_are_as_wide_as_they_have_to_be(distinct: int) -> None:
    values = [*range(distinct), 0]
    column = SampleColumn.model_validate_json(SampleColumn.of("x", values, type="whole").model_dump_json())
    assert column.unpack() == values
    assert column.counts()[0] == 2


def test_a_number_that_is_none_is_missing() -> None:
    column = SampleColumn.of("x", [1.5, math.nan, math.inf, math.nan], type="number")
    assert column.unpack() == [1.5, None, math.inf, None]


def test_ten_thousand_samples_of_few_sites_take_little_room() -> None:
    column = SampleColumn.of("site", [f"hospital {i % 5}" for i in range(10_000)], type="text")
    assert len(column.model_dump_json()) < 14_000


@pytest.mark.parametrize("codes", ["AA", "!", "AAA=", "AgE="])
def test_codes_that_fit_no_value_are_refused(codes: str) -> None:
    with pytest.raises(ValueError, match=r"codes|base64"):
        SampleColumn(name="x", type="text", values=("a", *(str(i) for i in range(300))) if codes == "AAA=" else ("a",),
                     codes="AAAA" if codes == "AAA=" else codes)  # fmt: skip


def make(n: int) -> ImageDataset:
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 2, 2).contiguous()
    return ImageDataset(images, torch.arange(n) % 2, ("a", "b"), metadata={"place": np.arange(n)})


def test_the_table_is_in_the_order_of_the_ids() -> None:
    part = make(9).subset(torch.tensor([7, 2, 5]))
    table = keep_metadata(part)
    assert table is not None
    assert table.samples == identify_samples(part)
    assert table.columns[0].unpack() == table.samples.list_ids() == [2, 5, 7]
    assert SampleTable.model_validate_json(table.model_dump_json()) == table
    assert keep_metadata(replace(part, metadata={})) is None
    with pytest.raises(ValueError, match="4 values in the column 'place'"):
        SampleTable(samples=identify_samples(make(4)), columns=table.columns)


def test_long_texts_that_differ_are_left_out_and_named() -> None:
    captions = np.array([f"{i}" + "x" * MOST_TEXT for i in range(3)], object)
    table = keep_metadata(replace(make(3), metadata={"caption": captions, "site": np.array(["s", "t", "s"], object)}))
    assert table is not None
    assert [column.name for column in table.columns] == ["site"]
    assert table.left_out == (f"caption: 3 different texts of {3 * (MOST_TEXT + 1):,} characters",)


def test_the_range_of_pixels_is_that_of_a_naive_loop() -> None:
    images = torch.randint(3, 90, (2050, 1, 3, 3), generator=torch.Generator().manual_seed(0)).byte()
    record = measure_pixel_range(ImageDataset(images, torch.arange(2050) % 2, ("a", "b")))
    rows = [sorted(image.flatten().tolist()) for image in images]
    assert (record.lowest, record.highest) == (min(row[0] for row in rows), max(row[-1] for row in rows))
    assert record.levels == len({value for row in rows for value in row})
    assert record.median_lowest == np.median([row[0] for row in rows])
    assert record.median_highest == np.median([row[-1] for row in rows])
