"""How the kernels are run: threads, forks, the cache and the announcement."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from assay.augment import engine
from assay.augment.plan import apply_plan
from assay.augment.published import RandAugment
from oracles import torch_operations

SCRIPT = """
import logging, sys, torch
from assay.augment import engine
{change}
from assay.augment.published import RandAugment
images = torch.arange(2 * 3 * 8 * 8).remainder(251).byte().reshape(2, 3, 8, 8)
result = RandAugment()(images, torch.arange(2), seed=0, epoch=0)
print("sum", int(result.long().sum()), engine.prepare_kernels())
"""


def run(change, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(change=change)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def work():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, RandAugment().plan(torch.arange(300), seed=0, epoch=0, height=32, width=32)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bytes(threads, work):
    expected = torch_operations.apply_plan(*work)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(apply_plan(*work), expected)
    finally:
        torch.set_num_threads(before)


def test_several_threads_may_call_at_once(work):
    expected = apply_plan(*work)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: apply_plan(*work), range(12)))
    assert all(torch.equal(result, expected) for result in results)


def test_a_slow_start_is_announced_once():
    ended = run("engine._SECONDS_UNTIL_ANNOUNCED = 0.0")
    assert ended.stderr.count("compiling the augmentation kernels") == 1


def test_a_fast_start_says_nothing_and_comes_from_the_cache(work):
    apply_plan(*work)  # fills the cache
    ended = run("engine._SECONDS_UNTIL_ANNOUNCED = 1e6")
    assert ended.stderr == ""
    assert "cached=True" in ended.stdout


def test_the_message_goes_through_logging(caplog):
    with caplog.at_level(logging.WARNING):
        engine.announce()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            "compiling the augmentation kernels: ten seconds or more, once on this machine (then they load from the "
            "cache)",
        )
    ]


def test_without_a_folder_to_cache_in_kernels_are_compiled_uncached(monkeypatch):
    from assay.augment.kernels import program

    def kernel(function, *, cached=False):
        if cached:
            raise RuntimeError("cannot cache function: no locator available")
        return function

    monkeypatch.setattr(program, "kernel", kernel)
    assert callable(program.build_runner())
