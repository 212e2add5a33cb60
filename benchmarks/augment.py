"""How fast is augmentation with its parameters drawn per sample? Against torchvision, timm, albumentations and kornia.

Every library does its own RandAugment(2 operations, magnitude 9) and each single operation on the same bytes, from a
batch in memory to a batch in memory. torchvision, timm and albumentations take one picture at a time; a Python loop
over the batch is how their users call them. kornia takes a batch, and gives every picture of it the same operations.

    python benchmarks/augment.py --json result.json [--quick]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from assay.augment.engine import prepare_kernels
from assay.augment.plan import apply_operation
from assay.augment.published import RandAugment
from assay.runtime import describe_environment

SINGLE = {
    "ShearX": 0.2,
    "ShearY": 0.2,
    "TranslateX": 5,
    "TranslateY": 5,
    "Rotate": 20.0,
    "Brightness": 1.5,
    "Color": 1.5,
    "Contrast": 1.5,
    "Sharpness": 1.5,
    "Posterize": 4,
    "Solarize": 128,
    "Equalize": 0,
    "AutoContrast": 0,
    "Invert": 0,
    "Hue": 0.2,
    "Flip": 0,
}


def natural_images(count: int, side: int) -> torch.Tensor:
    """Crops of a photograph: smooth parts, edges and a full histogram, as in real pictures."""
    from skimage import data

    photograph = torch.from_numpy(data.astronaut().transpose(2, 0, 1).copy())
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 512 - side + 1, (count, 2), generator=generator).tolist()
    return torch.stack([photograph[:, top : top + side, left : left + side] for top, left in corners])


def policies(images: torch.Tensor) -> dict:
    """Each peer's policy as a function of nothing; ours first."""
    ids, policy = torch.arange(len(images)), RandAugment()
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    arrays = [np.asarray(picture) for picture in pictures]
    runs = {"assay": lambda: policy(images, ids, seed=0, epoch=random.getrandbits(20))}

    from torchvision.transforms import v2

    tensor_policy = v2.RandAugment()
    runs["torchvision v2 (tensor)"] = lambda: [tensor_policy(image) for image in images]
    runs["torchvision v2 (PIL)"] = lambda: [tensor_policy(picture) for picture in pictures]
    try:
        from timm.data.auto_augment import rand_augment_transform

        timm_policy = rand_augment_transform("rand-m9-n2", {"translate_const": 10, "img_mean": (0, 0, 0)})
        runs["timm (PIL)"] = lambda: [timm_policy(picture) for picture in pictures]
    except ImportError:
        print("timm is not installed: left out")
    try:
        import albumentations as A

        albumentations_policy = A.SomeOf(
            [
                A.NoOp(),
                A.Affine(shear={"x": (-17, 17), "y": (0, 0)}, p=1),
                A.Affine(shear={"x": (0, 0), "y": (-17, 17)}, p=1),
                A.Affine(translate_percent={"x": (-0.14, 0.14), "y": (0, 0)}, p=1),
                A.Affine(translate_percent={"x": (0, 0), "y": (-0.14, 0.14)}, p=1),
                A.Rotate((-9, 9), p=1),
                A.ColorJitter(brightness=(0.73, 1.27), contrast=(1, 1), saturation=(1, 1), hue=(0, 0), p=1),
                A.ColorJitter(brightness=(1, 1), contrast=(0.73, 1.27), saturation=(1, 1), hue=(0, 0), p=1),
                A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=(0.73, 1.27), hue=(0, 0), p=1),
                A.Sharpen(alpha=(0.1, 0.3), p=1),
                A.Posterize(num_bits=7, p=1),
                A.Solarize(threshold_range=(0.7, 0.7), p=1),
                A.AutoContrast(p=1),
                A.Equalize(p=1),
            ],
            n=2,
            replace=True,
            p=1,
        )
        runs["albumentations"] = lambda: [albumentations_policy(image=array)["image"] for array in arrays]
    except ImportError:
        print("albumentations is not installed: left out")
    try:
        from kornia.augmentation.auto import RandAugment as KorniaRandAugment

        kornia_policy = KorniaRandAugment(n=2, m=9)
        floats = images.float() / 255
        runs["kornia (one draw a batch)"] = lambda: kornia_policy(floats)
    except ImportError:
        print("kornia is not installed: left out")
    return runs


def single_operations(images: torch.Tensor, name: str) -> dict:
    """One operation by us, by torchvision on tensors (whole batch at once) and by PIL (picture by picture)."""
    from torchvision.transforms import InterpolationMode, autoaugment
    from torchvision.transforms.v2 import functional as TF

    value = SINGLE[name]
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    tabled = value - 1.0 if name in {"Brightness", "Color", "Contrast", "Sharpness"} else value

    def pil(picture: Image.Image) -> Image.Image:
        if name in {"Hue", "Flip"}:
            return TF.adjust_hue(picture, value) if name == "Hue" else ImageOps.mirror(picture)
        return autoaugment._apply_op(picture, name, tabled, InterpolationMode.NEAREST, None)

    def batch() -> torch.Tensor:
        if name in {"Hue", "Flip"}:
            return TF.adjust_hue(images, value) if name == "Hue" else TF.horizontal_flip(images)
        return autoaugment._apply_op(images, name, tabled, InterpolationMode.NEAREST, None)

    magnitudes = torch.full((len(images),), float(value))
    return {
        "assay": lambda: apply_operation(images, name, magnitudes),
        "torchvision (whole batch)": batch,
        "PIL": lambda: [pil(picture) for picture in pictures],
    }


def interleave(runs: dict, *, seconds: float, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds a call, every peer in turn, so that a slow minute of the machine hits all of them."""
    times: dict[str, list[float]] = {peer: [] for peer in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for peer, run in runs.items():
            spent = 0.0
            while spent < seconds / rounds / len(runs):
                started = clock()
                run()
                times[peer].append(clock() - started)
                spent += times[peer][-1]
    return times


def rows(case: str, runs: dict, images: int, *, seconds: float, rounds: int, clock: Callable[[], float]) -> list[dict]:
    times = interleave(runs, seconds=seconds, rounds=rounds, clock=clock)
    rates = {peer: [images / max(t, 1e-9) for t in spent] for peer, spent in times.items()}
    ours = statistics.median(rates["assay"])
    found = []
    for peer, values in rates.items():
        if peer == "assay":
            continue
        theirs = statistics.median(values)
        found.append(
            {
                "case": case,
                "peer": peer,
                "unit": "images/s" if clock is time.perf_counter else "images/CPU-second",
                "ours": round(ours),
                "theirs": round(theirs),
                "ratio": round(ours / theirs, 2),
                "ours_spread": spread(rates["assay"]),
                "theirs_spread": spread(values),
            }
        )
        print(f"{case:34s} {peer:28s} {ours:12,.0f} {theirs:12,.0f} {ours / theirs:8.1f}×", flush=True)
    return found


def spread(values: list[float]) -> list[int]:
    """The quartiles."""
    return [round(float(q)) for q in np.quantile(values, [0.25, 0.75])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="one thread for everybody, rates per second of processor time: for a machine that others use as well",
    )
    parser.add_argument("--threads", type=int, help="torch's threads, which are ours too; default: as many as cores")
    options = parser.parse_args()
    if options.threads or options.cpu_time:
        torch.set_num_threads(options.threads or 1)
    clock = time.process_time if options.cpu_time else time.perf_counter
    warnings.simplefilter("ignore")
    prepared = prepare_kernels()
    print(f"kernels: {prepared}\n{'case':34s} {'peer':28s} {'assay':>12s} {'peer':>12s} {'ratio':>9s}")
    found: list[dict] = []
    for side, batch in ((32, 512), (224, 64)):
        images = natural_images(batch, side)
        case = f"RandAugment {side}×{side}, batch {batch}"
        found += rows(
            case,
            policies(images),
            batch,
            seconds=6 if options.quick else 40,
            rounds=3 if options.quick else 7,
            clock=clock,
        )
    for side, batch in ((32, 512), (224, 64)):
        images = natural_images(batch, side)
        for name in SINGLE:
            runs = single_operations(images, name)
            found += rows(
                f"{name} {side}×{side}", runs, batch, seconds=0.6 if options.quick else 2.0, rounds=3, clock=clock
            )
    if options.json:
        environment = describe_environment(torch.device("cpu")).model_dump()
        kernels = {"compile_seconds": prepared.seconds, "cached": prepared.cached}
        options.json.write_text(json.dumps({"environment": environment, "kernels": kernels, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
