"""Random numbers depend on (seed, epoch, id, slot) and on nothing else."""

import numpy as np
import torch

from assay.augment.randomness import draw_bits, draw_integers, draw_uniforms


def test_a_number_does_not_depend_on_batch_or_order():
    ids = torch.tensor([7, -3, 2**62, 0, 5])
    together = draw_uniforms(ids, seed=1, epoch=2, slots=(3,))[0]
    alone = [draw_uniforms(ids[i : i + 1], seed=1, epoch=2, slots=(3,))[0][0] for i in range(5)]
    backwards = draw_uniforms(ids.flip(0), seed=1, epoch=2, slots=(3,))[0][::-1]
    assert together.tolist() == alone == backwards.tolist()


def test_several_streams_at_once_are_the_streams_one_by_one():
    ids = torch.tensor([7, -3, 2**62, 0, 5])
    together = draw_uniforms(ids, seed=1, epoch=2, slots=range(3, 6))
    assert together.tolist() == [draw_uniforms(ids, seed=1, epoch=2, slots=(slot,))[0].tolist() for slot in (3, 4, 5)]


def test_the_numbers_are_the_same_in_every_version():
    drawn = draw_bits(torch.tensor([0, 1, -1]), seed=0, epoch=0, slots=[0])[0]
    pinned = ["b1611c57b2b3fd25", "68a12051957208ca", "0255bc1863889a50"]
    assert [f"{number:016x}" for number in drawn.tolist()] == pinned


def test_seed_epoch_slot_and_id_each_change_the_number():
    ids = torch.arange(1000)
    base = draw_bits(ids, seed=0, epoch=0, slots=[0])[0]
    others = [
        draw_bits(ids, seed=1, epoch=0, slots=[0])[0],
        draw_bits(ids, seed=0, epoch=1, slots=[0])[0],
        draw_bits(ids, seed=0, epoch=0, slots=[1])[0],
        draw_bits(ids + 1000, seed=0, epoch=0, slots=[0])[0],
        draw_bits(ids, seed=-1, epoch=0, slots=[0])[0],
    ]
    everything = np.concatenate([base, *others])
    assert len(np.unique(everything)) == len(everything)


def test_uniform_numbers_are_uniform_and_streams_unrelated():
    ids = torch.arange(20_000)
    streams = np.stack(
        [draw_uniforms(ids, seed=s, epoch=e, slots=(k,))[0] for s in (0, 1) for e in (0, 1) for k in (0, 1)]
    )
    assert streams.min() >= 0
    assert streams.max() < 1
    counts = np.stack([np.histogram(stream, bins=20, range=(0, 1))[0] for stream in streams])
    chi_squared = ((counts - 1000.0) ** 2 / 1000.0).sum(axis=1)
    assert chi_squared.max() < 50  # 19 degrees of freedom: beyond 50 once in 10 000 draws
    correlations = np.corrcoef(np.concatenate([streams, np.roll(streams, 1, axis=1)]))
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 0.04


def test_integers_cover_their_range_evenly():
    drawn = draw_integers(torch.arange(9000), 9, seed=4, epoch=0, slot=0)
    assert np.bincount(drawn, minlength=9).min() > 880
    assert drawn.min() == 0
    assert drawn.max() == 8
