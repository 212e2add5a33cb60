"""How the kernels are run: threads, forks, the announcement, and life without numba."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from assay.augment import engine
from assay.augment.plan import apply_plan
from assay.augment.published import RandAugment

SCRIPT = """
import logging, sys, torch
from assay.augment import engine
{change}
from assay.augment.plan import apply_operation
from assay.augment.published import RandAugment
images = torch.arange(2 * 3 * 8 * 8).remainder(251).byte().reshape(2, 3, 8, 8)
moved = apply_operation(images, "Crop", 2, place=(0, 1))
print("ready after a crop:", engine.kernels_ready())
result = RandAugment()(images, torch.arange(2), seed=0, epoch=0)
print("ready after a policy:", engine.kernels_ready())
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
    expected = apply_plan(*work, compiled=False)
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


def test_without_numba_torch_gives_the_same_bytes(work, monkeypatch):
    expected = apply_plan(*work)
    monkeypatch.setattr(engine, "has_kernels", lambda: False)
    monkeypatch.setattr(engine, "_prepare", lambda: pytest.fail("compiled without numba"))
    engine_ready = engine.run_torch
    calls = []
    monkeypatch.setattr(engine, "run_torch", lambda *a, **k: calls.append(1) or engine_ready(*a, **k))
    assert torch.equal(apply_plan(*work), expected)
    assert calls == [1]


def test_crops_wait_for_no_compiler_and_a_slow_start_is_announced():
    ended = run("engine._PATIENCE = 0.0")
    assert "ready after a crop: False" in ended.stdout
    assert "ready after a policy: True" in ended.stdout
    assert ended.stderr.count("compiling the augmentation kernels") == 1


def test_a_fast_start_says_nothing_and_comes_from_the_cache(work):
    apply_plan(*work)  # fills the cache
    ended = run("engine._PATIENCE = 1e6")
    assert ended.stderr == ""
    assert "cached=True" in ended.stdout


def test_the_message_goes_through_logging(caplog):
    with caplog.at_level(logging.WARNING):
        engine.announce()
    assert "compiling the augmentation kernels" in caplog.text


def test_without_a_folder_to_cache_in_kernels_are_compiled_uncached(monkeypatch):
    from assay.augment.kernels import program

    def kernel(function, *, cached=False):
        if cached:
            raise RuntimeError("cannot cache function: no locator available")
        return function

    monkeypatch.setattr(program, "kernel", kernel)
    assert callable(program.build_runner())
