"""Does a network that was trained before learn new classes in fewer steps? Against the same network from scratch.

A ResNet-8 is trained on the digits 0 to 4. Then ten pictures of each of the digits 5 to 9 are learned in the same
number of steps: from those weights by the recipe ``finetune``, with a new last layer, and from random weights. Each way
has the same three learning rates, and the one that is best on the test set counts: so the numbers compare the ways and
estimate neither. The test set is that of the digits 5 to 9. Seeds decide the pictures, the last layer and the order;
the difference is paired by seed, with the 95 % interval of Student's t.

    python benchmarks/finetune.py [--seeds 5] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from scipy.stats import t

from assay.data.dataset import ImageDataset
from assay.data.sources import load_dataset
from assay.evaluate import measure_clean_accuracy
from assay.runtime import generator
from assay.training.classifier import train_classifier
from assay.training.recipes import load_recipe

MODEL, PER_CLASS, RATES = "resnet8", 10, (3e-3, 1e-2, 3e-2)
STEPS = ("epochs=6", "batch_size=16", "augment.name=none")


def of_classes(data: ImageDataset, classes: range) -> ImageDataset:
    chosen = torch.isin(data.labels, torch.tensor(list(classes)))
    names = tuple(data.classes[number] for number in classes)
    images, labels = data.images[chosen], data.labels[chosen] - classes.start
    return ImageDataset(images, labels, names, name=f"digits {classes.start}-{classes.stop - 1}", split=data.split)


def few_of_each(data: ImageDataset, seed: int) -> ImageDataset:
    order = torch.randperm(len(data), generator=generator(seed, 0xF1E))
    chosen = [order[data.labels[order] == label][:PER_CLASS] for label in range(len(data.classes))]
    return data.subset(torch.cat(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    train, test = (load_dataset("digits", split=split) for split in ("train", "test"))
    old, new, measured = of_classes(train, range(5)), of_classes(train, range(5, 10)), of_classes(test, range(5, 10))
    accuracies: dict[str, dict[float, list[float]]] = {
        way: {rate: [] for rate in RATES} for way in ("finetune", "scratch")
    }
    with tempfile.TemporaryDirectory() as folder:
        before = load_recipe("digits", overrides=[f"model={MODEL}", "model_options={}", "epochs=10"])
        train_classifier(old, recipe=before, out=Path(folder))
        plain = ("finetune.frozen_epochs=0", "finetune.layer_decay=1.0")
        for seed in range(options.seeds):
            few = few_of_each(new, seed)
            for way, changes in (("finetune", (f"model={folder}",)), ("scratch", (f"model={MODEL}", *plain))):
                for rate in RATES:
                    recipe = load_recipe("finetune", overrides=[*STEPS, *changes, f"optimizer.lr={rate}"])
                    model = train_classifier(few, recipe=recipe, seed=seed).model
                    accuracies[way][rate].append(measure_clean_accuracy(model, measured).accuracy)
    best = {}
    for way, by_rate in accuracies.items():
        rate = max(RATES, key=lambda each: statistics.mean(by_rate[each]))
        best[way] = by_rate[rate]
        print(f"{way}: {statistics.mean(best[way]):.1%} at lr {rate:g}, of", by_rate)
    gains = [one - other for one, other in zip(best["finetune"], best["scratch"], strict=True)]
    half = float(t.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / len(gains) ** 0.5
    print(f"gain {statistics.mean(gains):.1%} ± {half:.1%} (95 %, {len(gains)} seeds, n = {len(measured)} test images)")
    if options.json:
        options.json.write_text(json.dumps({**accuracies, "n": len(measured)}, indent=1))


if __name__ == "__main__":
    main()
