"""Long attacks: parts, resuming, stopping early."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assay.attacks import campaign
from assay.attacks.campaign import await_parts, confidence_sequence, merge_campaign, run_campaign
from assay.attacks.engine import attack
from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.methods.gradient import PGD
from assay.data import load_dataset
from assay.errors import DataError, OptionError, OutputError
from assay.files import exclusive
from assay.records.accuracy import wilson_interval
from assay.runtime.sharding import BlockShard, Shard

OPTIONS = PGD(steps=4)


def without_time(record):
    return record.model_copy(update={"seconds": 0.0})


def test_the_table_holds_every_sample_once_and_agrees_with_one_run(conv_net, small_set, tmp_path):
    done = run_campaign(conv_net, small_set, folder=tmp_path, attack=OPTIONS, epsilon=0.02, block=20)
    whole = measure_robust_accuracy(conv_net, small_set, attack=OPTIONS, epsilon=0.02)
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == [f"part-0000{i}.parquet" for i in range(3)]
    rows = {row["id"]: row for row in done.table.to_pylist()}
    assert sorted(rows) == list(range(48))
    assert [rows[i]["robust"] for i in range(48)] == whole.result.robust.tolist()
    assert [rows[i]["label"] for i in range(48)] == small_set.labels.tolist()
    for i in range(48):
        assert (rows[i]["attack"] == "pgd") == bool(whole.result.broken[i])
        assert len(rows[i]["losses"]) == 5
    assert done.record.correct == whole.record.correct
    assert done.record.clean_correct == whole.record.clean_correct
    assert done.record.loss_per_step == pytest.approx(whole.record.loss_per_step, rel=1e-4)
    assert done.record.accuracy_per_step == pytest.approx(whole.record.accuracy_per_step)
    assert done.record.mean_distance == pytest.approx(whole.record.mean_distance)
    assert not done.stopped


def test_a_killed_run_resumes_to_the_same_record(conv_net, small_set, tmp_path, monkeypatch):
    straight = run_campaign(conv_net, small_set, folder=tmp_path / "a", attack=OPTIONS, epsilon=0.02, block=10)
    calls: list[int] = []

    def dies(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return attack(*args, **options)

    monkeypatch.setattr(campaign, "run_attack", dies)
    with pytest.raises(KeyboardInterrupt):
        run_campaign(conv_net, small_set, folder=tmp_path / "b", attack=OPTIONS, epsilon=0.02, block=10)
    assert len(list((tmp_path / "b").glob("*.parquet"))) == 2
    resumed = run_campaign(
        conv_net, small_set, folder=tmp_path / "b", attack=OPTIONS, epsilon=0.02, block=10, resume=True
    )
    assert len(calls) == 3 + 3  # two parts were taken over, three made
    assert without_time(resumed.record) == without_time(straight.record)
    assert resumed.table.equals(straight.table)


def test_another_campaign_is_not_resumed_and_none_is_overwritten(conv_net, small_set, tmp_path):
    run_campaign(conv_net, small_set, folder=tmp_path, attack=OPTIONS, epsilon=0.02)
    with pytest.raises(OptionError, match="expected an empty folder, or --resume, got an earlier campaign"):
        run_campaign(conv_net, small_set, folder=tmp_path, attack=OPTIONS, epsilon=0.02)
    with pytest.raises(OptionError, match=r"identity.json: epsilon: expected 0.02 as in the run to resume, got 0.03"):
        run_campaign(conv_net, small_set, folder=tmp_path, attack=OPTIONS, epsilon=0.03, resume=True)


def test_stopping_early_samples_at_random_and_says_so(conv_net, small_set, tmp_path):
    done = run_campaign(conv_net, small_set, folder=tmp_path, attack="fgsm", epsilon=0.5, block=12, stop_at=0.2)
    assert done.stopped
    assert done.record.n in {12, 24, 36}
    assert (done.high - done.low) / 2 <= 0.2
    assert done.low <= done.record.accuracy <= done.high
    ids = pq.read_table(tmp_path / "part-00000.parquet")["id"].to_pylist()
    assert ids != sorted(ids)
    with pytest.raises(OptionError, match="stop_at: expected a half-width between 0 and 0.5, got 0.7"):
        run_campaign(conv_net, small_set, folder=tmp_path, stop_at=0.7)


@pytest.mark.parametrize("shared", [True, False], ids=["one folder", "a folder each"])
def test_shards_merge_into_the_record_of_one_run(conv_net, small_set, tmp_path, shared):
    whole = run_campaign(conv_net, small_set, folder=tmp_path / "all", attack=OPTIONS, epsilon=0.02, block=10)
    folders = [tmp_path / "0", tmp_path / ("0" if shared else "1")]
    for i in (1, 0):
        part = run_campaign(
            conv_net, small_set, folder=folders[i], attack=OPTIONS, epsilon=0.02, block=10, shard=Shard(i, 2)
        )
        assert part.stopped
        assert part.record.n == (28, 20)[i]
    merged = merge_campaign(folders[: 1 if shared else 2])
    assert without_time(merged.record) == without_time(whole.record)
    assert merged.table.equals(whole.table)
    assert not merged.stopped


def test_a_merge_takes_each_sample_exactly_once(conv_net, small_set, tmp_path):
    def run(name, index, **other):
        options = {"attack": OPTIONS, "epsilon": 0.02, "block": 16, **other}
        run_campaign(conv_net, small_set, folder=tmp_path / name, shard=Shard(index, 3), **options)
        return tmp_path / name

    first, second, again, stranger = run("a", 0), run("b", 1), run("c", 0), run("d", 2, epsilon=0.03)
    with pytest.raises(DataError, match=r"parts: expected 48 samples, got 32: a shard is missing or unfinished"):
        merge_campaign([first, second])
    with pytest.raises(DataError, match=r"sample \d+: expected in one part, got in several"):
        merge_campaign([first, second, again])
    with pytest.raises(OptionError, match=r"d.identity.json: epsilon: expected 0.02 as in .*a, got 0.03"):
        merge_campaign([first, second, stranger])
    with pytest.raises(DataError, match="expected the identity of a resumable job"):
        merge_campaign([tmp_path])
    (second / "part-00002.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="expected a Parquet part of a campaign"):
        merge_campaign([first, second])


def test_another_model_or_other_images_are_another_campaign(conv_net, small_set, tmp_path):
    options = {"folder": tmp_path, "attack": OPTIONS, "epsilon": 0.02}
    run_campaign(conv_net, small_set, **options)
    other = r"expected '\w{64}' as in the run to resume, got '\w{64}'"
    changed = replace(small_set, images=small_set.images.flip(3))
    with pytest.raises(OptionError, match=f"identity.json: samples: {other}"):
        run_campaign(conv_net, changed, resume=True, **options)
    with pytest.raises(OptionError, match="identity.json: eot_samples: expected 1 as in the run to resume, got 2"):
        run_campaign(conv_net, small_set, resume=True, eot_samples=2, **options)
    with torch.no_grad():
        conv_net[0].weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(OptionError, match=f"identity.json: model: {other}"):
        run_campaign(conv_net, small_set, resume=True, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [("2/2", "i/n with 0 <= i < n, got 2/2"), ("a", "i/n such as 0/4, got 'a'"), ("1/2/3", "i/n such as 0/4")],
)
def test_shards_that_are_none(text, message):
    with pytest.raises(OptionError, match="shard: expected " + message):
        Shard.parse(text)


def test_a_shared_run_does_not_stop_early_nor_outnumber_its_blocks(conv_net, small_set, tmp_path):
    with pytest.raises(OptionError, match="stop_at: expected a run without shards"):
        run_campaign(conv_net, small_set, folder=tmp_path, stop_at=0.1, shard=Shard(0, 2))
    with pytest.raises(OptionError, match="shard: expected at most 3, one a block of 20 samples, got 4"):
        run_campaign(conv_net, small_set, folder=tmp_path, block=20, shard=Shard(3, 4))


@pytest.mark.parametrize("p", [0.03, 0.5, 0.9])
def test_the_sequence_covers_at_every_look_where_the_wilson_interval_does_not(p):
    generator = torch.Generator().manual_seed(int(100 * p))
    runs, looks = 300, range(10, 401, 10)
    tosses = (torch.rand(runs, 400, generator=generator) < p).cumsum(dim=1)
    missed = wilson_missed = 0
    for counts in tosses.tolist():
        found = [confidence_sequence(counts[n - 1], n) for n in looks]
        missed += any(not low <= p <= high for low, high in found)
        wilson = [wilson_interval(counts[n - 1], n) for n in looks]
        wilson_missed += any(not low <= p <= high for low, high in wilson)
    assert missed / runs <= 0.05
    assert wilson_missed / runs > 0.10


def test_the_sequence_narrows_and_knows_its_ends():
    assert confidence_sequence(0, 0) == (0.0, 1.0)
    assert confidence_sequence(0, 50)[0] == 0.0
    assert confidence_sequence(50, 50)[1] == 1.0
    widths = [high - low for low, high in (confidence_sequence(n // 4, n) for n in (40, 400, 4000, 40000))]
    assert widths == sorted(widths, reverse=True)
    low, high = wilson_interval(1000, 4000)
    wider = confidence_sequence(1000, 4000)
    assert wider[0] < low
    assert wider[1] > high
    assert wider[1] - wider[0] < 2.5 * (high - low)


def test_a_second_process_is_kept_out_of_a_campaign_but_not_out_of_its_shards(conv_net, small_set, tmp_path):
    common = {"folder": tmp_path, "attack": OPTIONS, "epsilon": 0.02, "block": 24}
    with exclusive(tmp_path):
        with pytest.raises(OutputError, match="another process is at work in this folder"):
            run_campaign(conv_net, small_set, **common)
        assert not list(tmp_path.glob("*")), "nothing is written by who is refused"
        run_campaign(conv_net, small_set, shard=Shard(1, 2), **common)
    assert [path.name for path in tmp_path.glob("*.parquet")] == ["part-00001.parquet"]


@pytest.fixture
def shards(conv_net, small_set, tmp_path):
    """Two of three shards in folders of their own, and the third beside them."""
    for i in range(3):
        run_campaign(
            conv_net, small_set, folder=tmp_path / str(i), attack="fgsm", epsilon=0.02, block=16, shard=Shard(i, 3)
        )
    return [tmp_path / str(i) for i in range(3)]


def test_missing_parts_are_named_with_their_counts(shards):
    message = r"parts: expected 48 samples, got 16: a shard is missing .* \(part-00000, part-00002 of 3 parts\)"
    with pytest.raises(DataError, match=message):
        merge_campaign([shards[1]])
    assert merge_campaign(shards).record.n == 48


def test_one_folder_twice_is_refused_and_both_places_are_named(shards):
    with pytest.raises(DataError, match=r"sample \d+: expected in one part, got in several: \S*part-0.* and \S*part-0"):
        merge_campaign([shards[0], *shards])


def test_a_truncated_part_is_named(shards):
    path = shards[1] / "part-00001.parquet"
    for size in (0, 10, path.stat().st_size - 3):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DataError, match="part-00001.parquet: expected a Parquet part of a campaign"):
            merge_campaign(shards)


def rewrite(path, name, values):
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    pq.write_table(table.set_column(place, table.schema.field(name), [values(table[name].to_pylist())]), path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("id", lambda ids: [i + 1000 for i in ids], "parts: expected the samples of the campaign, got others"),
        ("robust", lambda values: [None, *values[1:]], "expected a result for every sample, got rows without one"),
        ("clean_prediction", lambda values: [9] * len(values), "expected right before, if it is robust, got wrong"),
    ],
)
def test_a_part_that_contradicts_itself_or_its_campaign_is_refused(shards, name, values, message):
    rewrite(shards[1] / "part-00001.parquet", name, values)
    with pytest.raises(DataError, match=message):
        merge_campaign(shards)


def test_a_part_of_other_samples_is_not_taken_over(conv_net, small_set, tmp_path):
    options = {"folder": tmp_path, "attack": "fgsm", "epsilon": 0.02, "block": 24}
    run_campaign(conv_net, small_set, **options)
    (tmp_path / "part-00000.parquet").write_bytes((tmp_path / "part-00001.parquet").read_bytes())
    with pytest.raises(DataError, match="part-00000.parquet: expected the samples of block 0, got others"):
        run_campaign(conv_net, small_set, resume=True, **options)


def test_the_folder_of_another_job_is_no_campaign(tmp_path):
    (tmp_path / "identity.json").write_text('{"budget": "quick", "seed": 0}')
    with pytest.raises(
        DataError, match=r"identity.json: expected the identity of an attack, got one with budget, seed"
    ):
        merge_campaign([tmp_path])


def test_logits_that_are_no_numbers_count_as_wrong_and_merge(conv_net, small_set, tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, images):
            logits = conv_net(images)
            return torch.where(images.mean((1, 2, 3), keepdim=False)[:, None] > 0.5, torch.nan, logits)

    run = partial(run_campaign, Broken(), small_set, attack="fgsm", epsilon=0.02, block=16)
    whole = run(folder=tmp_path / "all").record
    folders = [tmp_path / str(i) for i in range(2)]
    for i, folder in enumerate(folders):
        run(folder=folder, shard=Shard(i, 2))
    merged = merge_campaign(folders).record
    assert without_time(merged).model_dump_json() == without_time(whole).model_dump_json()


@pytest.fixture(scope="module")
def stored_set(tmp_path_factory):
    """A folder of small grey pictures of four classes, with a broken one."""
    root = tmp_path_factory.mktemp("stored")
    pixels = torch.randint(0, 256, (47, 8, 8), generator=torch.Generator().manual_seed(3)).byte().numpy()
    for place, picture in enumerate(pixels):
        folder = root / "abcd"[place % 4]
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture).convert("RGB").save(folder / f"{place:02}.png")
    (root / "a" / "99.png").write_bytes(b"nothing")
    return root


@pytest.mark.parametrize("count", [2, 5])
def test_shards_that_were_read_apart_merge_into_the_record_of_one_run(conv_net, stored_set, tmp_path, count):
    run = partial(run_campaign, conv_net, attack=OPTIONS, epsilon=0.02, block=6)
    whole = run(load_dataset(stored_set, max_bad=1), folder=tmp_path / "all")
    folders = [tmp_path / str(i) for i in range(count)]
    for i, folder in enumerate(folders):
        shard = load_dataset(stored_set, max_bad=1, shard=(i, count))
        part = run(shard, folder=folder)
        assert part.record.n == len(shard) < 47
        assert part.stopped
    merged = merge_campaign(folders)
    assert merged.record.n == 47
    assert not merged.stopped
    # What it cost depends on the blocks, and the last digit of a loss on the images that share a pass.
    alike = {"seconds": 0.0, "forward_equivalents": 0.0, "loss_per_step": (), "mean_distance": 0.0}
    assert merged.record.model_copy(update=alike) == whole.record.model_copy(update=alike)
    assert merged.record.loss_per_step == pytest.approx(whole.record.loss_per_step, rel=1e-6)
    assert merged.record.mean_distance == pytest.approx(whole.record.mean_distance, rel=1e-6)
    columns = ["id", "prediction", "robust", "attack", "steps"]
    rows, expected = (done.table.select(columns).sort_by("id") for done in (merged, whole))
    assert rows.equals(expected)


@pytest.mark.parametrize("broken", [0, 1])
def test_shards_that_were_read_by_blocks_are_the_blocks_of_one_run(conv_net, stored_set, tmp_path, broken):
    data = load_dataset(stored_set, max_bad=1)
    np.savez(tmp_path / "set.npz", images=data.images.numpy(), labels=data.labels.numpy())
    source = stored_set if broken else tmp_path / "set.npz"
    run = partial(run_campaign, conv_net, attack=OPTIONS, epsilon=0.02, block=6, seed=4)
    whole = run(load_dataset(source, max_bad=broken), folder=tmp_path / "all")
    for i in (2, 0, 1):
        shard = BlockShard(i, 3, block=6, seed=4)
        run(load_dataset(source, max_bad=broken, shard=shard), folder=tmp_path / "shared")
    merged = merge_campaign([tmp_path / "shared"])
    await_parts(tmp_path / "shared")
    if not broken:
        assert merged.table.equals(whole.table)
        assert without_time(merged.record) == without_time(whole.record)
    assert merged.record.correct == whole.record.correct
    assert sorted(merged.table["id"].to_pylist()) == sorted(whole.table["id"].to_pylist())
    with pytest.raises(OptionError, match="shard: expected the seed and the block by which the images were read"):
        run(load_dataset(source, max_bad=broken, shard=BlockShard(0, 3, block=7, seed=4)), folder=tmp_path / "x")
    with pytest.raises(OptionError, match="shard: expected a shard of 47 samples that has any, got 32/33"):
        load_dataset(tmp_path / "set.npz", shard=BlockShard(32, 33))


def test_what_is_missing_of_shards_that_were_read_apart_is_named(conv_net, stored_set, tmp_path):
    def run(name, index, count=3, **other):
        data = load_dataset(stored_set, max_bad=1, shard=(index, count))
        options = {"attack": "fgsm", "epsilon": 0.02, "block": 8, **other}
        run_campaign(conv_net, data, folder=tmp_path / name, **options)
        return tmp_path / name

    first, second, third = (run(str(i), i) for i in range(3))
    with pytest.raises(DataError, match=r"shards: expected all 3, got 2: without 1/3"):
        merge_campaign([first, third])
    with pytest.raises(DataError, match=r"sample \d+: expected in one part, got in several"):
        merge_campaign([first, second, third, run("again", 1)])
    with pytest.raises(OptionError, match="shards: expected 3 as in .*0, got 2"):
        merge_campaign([first, run("half", 1, count=2)])
    with pytest.raises(OptionError, match="shard: expected 0/3, as the images were read, got 1/3"):
        run("x", 0, shard=Shard(1, 3))
    assert run("0", 0, resume=True) == first
    with pytest.raises(OptionError, match="0: expected an empty folder, or --resume"):
        run("0", 0)
    (second / "part-00004.parquet").unlink()
    with pytest.raises(DataError, match="shard 1/3: expected 2 parts, got 1: it is unfinished"):
        merge_campaign([first, second, third])
    (third / "shard-00002.json").write_text("{}")
    with pytest.raises(DataError, match="shard-00002.json: expected the samples of a shard, got one with"):
        merge_campaign([first, second, third])


def test_changed_pictures_of_a_shard_are_another_campaign(conv_net, stored_set, tmp_path):
    data = load_dataset(stored_set, max_bad=1, shard=(0, 2))
    options = {"folder": tmp_path, "attack": "fgsm", "epsilon": 0.02}
    run_campaign(conv_net, data, **options)
    with pytest.raises(OptionError, match="shard-00000.json: samples: expected"):
        run_campaign(conv_net, replace(data, images=255 - data.images), resume=True, **options)
