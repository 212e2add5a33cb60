"""The records of an ordinary check, as plain numbers: what a small residual network on ten classes looks like."""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Sequence

from PIL import Image

from assay.records.accuracy import CalibrationBin, ClassAccuracy, CleanAccuracy
from assay.records.anatomy import Anatomy, BlockAnatomy, LayerAnatomy
from assay.records.attack import (
    AdversarialExample,
    AdversarialGallery,
    EpsilonCurve,
    EpsilonPoint,
    PicturedSample,
    RobustAccuracy,
    SampleGallery,
)
from assay.records.compression import LayerSpectra, LayerSpectrum
from assay.records.gradients import GradientFlow, InputGradients, InputGradientSample, LayerGradient
from assay.records.training import EpochSummary, TimeSplit, TrainingRun

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RIGHT = (94, 97, 87, 82, 93, 86, 95, 94, 96, 93)


def png(seed: int, *, size: int = 32, grey: bool = False) -> str:
    """A small picture with some structure: two blobs on a gradient."""
    rng = random.Random(seed)
    blobs = [
        (rng.uniform(6, 26), rng.uniform(6, 26), rng.uniform(4, 9), rng.choices(range(256), k=3)) for _ in range(3)
    ]
    base = rng.choices(range(60, 200), k=3)
    picture = Image.new("RGB", (size, size))
    for x in range(size):
        for y in range(size):
            pixel = [channel + (y - 16) * 2 for channel in base]
            for cx, cy, radius, colour in blobs:
                weight = math.exp(-((x * 32 / size - cx) ** 2 + (y * 32 / size - cy) ** 2) / radius**2)
                pixel = [p * (1 - weight) + c * weight for p, c in zip(pixel, colour, strict=True)]
            noise = rng.gauss(0, 6)
            picture.putpixel((x, y), tuple(min(255, max(0, round(p + noise))) for p in pixel))
    buffer = io.BytesIO()
    (picture.convert("L") if grey else picture).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def clean_accuracy(classes: Sequence[str]) -> CleanAccuracy:
    rng = random.Random(1)
    k = len(classes)
    right = [RIGHT[i % 10] for i in range(k)]
    confusion = [[0] * k for _ in range(k)]
    for i in range(k):
        confusion[i][i] = right[i]
        for _ in range(100 - right[i]):
            near = {3: 5, 5: 3, 0: 8, 8: 0, 1: 9, 9: 1, 2: 4}.get(i, (i + 1) % k) % k
            j = near if rng.random() < 0.5 else rng.randrange(k)
            confusion[i][j if j != i else (i + 1) % k] += 1
    edges = [i / 15 for i in range(16)]
    sizes = [0, 0, 1, 2, 4, 6, 9, 12, 14, 18, 22, 30, 41, 70, 771]
    bins = tuple(
        CalibrationBin(
            low=low,
            high=high,
            n=n,
            confidence=(low + high) / 2 + 0.01,
            accuracy=max(0.0, (low + high) / 2 - 0.1) if n < 700 else 0.962,
        )
        for low, high, n in zip(edges, edges[1:], sizes, strict=False)
    )
    return CleanAccuracy.of(
        sum(right),
        100 * k,
        loss=0.284,
        confusion=tuple(map(tuple, confusion)),
        expected_calibration_error=0.046,
        calibration=bins,
        per_class=tuple(ClassAccuracy.of(r, 100, name=name) for r, name in zip(right, classes, strict=True)),
        mean_confidence=0.953,
        top5_accuracy=0.997,
        images_per_second=812.0,
    )


def attacks() -> tuple[RobustAccuracy, ...]:
    common = {"norm": "linf", "epsilon": 8 / 255, "seed": 0, "clean_correct": 917}
    climb = tuple(0.284 + 14 * (1 - math.exp(-i / 5)) for i in range(21))
    fall = tuple(max(0.0, 0.917 * math.exp(-i / 1.2)) for i in range(21))
    return (
        RobustAccuracy.of(
            248,
            1000,
            attack="fgsm",
            step_size=8 / 255,
            steps=1,
            restarts=1,
            loss_per_step=(0.284, 4.13),
            accuracy_per_step=(0.917, 0.248),
            mean_distance=0.0312,
            forward_equivalents=4,
            seconds=2.4,
            correct_after_rounding=249,
            **common,
        ),
        RobustAccuracy.of(
            0,
            1000,
            attack="pgd",
            step_size=2 / 255,
            steps=20,
            restarts=1,
            loss_per_step=climb,
            accuracy_per_step=fall,
            mean_distance=0.0309,
            forward_equivalents=61,
            seconds=41.0,
            **common,
        ),
        RobustAccuracy.of(
            12,
            1000,
            attack="signed-steps",
            step_size=8 / 255,
            steps=5,
            restarts=1,
            constrained=False,
            loss_per_step=(0.284, 4.13, 8.2, 11.6, 14.1, 16.0),
            accuracy_per_step=(0.917, 0.248, 0.06, 0.03, 0.02, 0.012),
            mean_distance=0.11,
            seconds=9.9,
            **common,
        ),
    )


def curve() -> EpsilonCurve:
    rights = (917, 871, 790, 642, 455, 287, 96, 21, 0)
    sizes = (0, 0.25, 0.5, 1, 1.5, 2, 4, 6, 8)
    points = tuple(EpsilonPoint.of(right, 1000, epsilon=size / 255) for right, size in zip(rights, sizes, strict=True))
    return EpsilonCurve(attack="pgd", norm="linf", steps=10, points=points, median_epsilon=1.4 / 255, seconds=61.0)


def gallery(classes: Sequence[str]) -> AdversarialGallery:
    examples = tuple(
        AdversarialExample(
            sample_id=f"test/{i * 137}",
            label=classes[i % len(classes)],
            clean_prediction=classes[i % len(classes)],
            clean_confidence=0.99 - i * 0.01,
            adversarial_prediction=classes[(i * 3 + 1) % len(classes)],
            adversarial_confidence=1 - i * 0.0007,
            distance=8 / 255,
            magnified=16,
            image=png(i),
            perturbation=png(i + 50),
            adversarial=png(i),
        )
        for i in range(9)
    )
    return AdversarialGallery(attack="pgd", norm="linf", epsilon=8 / 255, examples=examples)


LAYERS = ("conv1", *(f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)), "fc")


def flow() -> GradientFlow:
    rng = random.Random(2)
    layers = tuple(
        LayerGradient(
            name=name,
            type="Linear" if name == "fc" else "Conv2d",
            depth=i,
            parameters=432 * 4 ** (i // 7),
            weight_norm=5 + i * 0.6,
            weight_gradient=0.4 * math.exp(-i * 0.09 + rng.gauss(0, 0.3)),
            relative_gradient=0.03 * math.exp(-i * 0.1 + rng.gauss(0, 0.3)),
            activation=0.8 + rng.gauss(0, 0.1),
            activation_gradient=0.02 * math.exp(i * 0.03 + rng.gauss(0, 0.25)),
            dead=None if name == "fc" else 0.0,
        )
        for i, name in enumerate(LAYERS)
    )
    return GradientFlow(layers=layers, n=256, loss=0.284, decay_per_layer=0.97)


def input_gradients(classes: Sequence[str]) -> InputGradients:
    samples = tuple(
        InputGradientSample(
            sample_id=f"test/{i}",
            label=classes[i % len(classes)],
            prediction=classes[(i + (i % 2)) % len(classes)],
            confidence=0.97 - 0.03 * i,
            correct=i % 2 == 0,
            gradient_norm=(0.003, 3.1)[i % 2] * (1 + i / 10),
            image=png(i + 10),
            gradient_map=png(i + 90, grey=True),
        )
        for i in range(12)
    )
    return InputGradients(
        n_right=235,
        n_wrong=21,
        median_norm_right=0.012,
        median_norm_wrong=4.2,
        quantiles_right=(2.1e-5, 0.0011, 0.012, 0.19, 2.3),
        quantiles_wrong=(0.41, 2.1, 4.2, 7.9, 14.6),
        concentration=0.46,
        zero=0,
        non_finite=0,
        samples=samples,
    )


def spectra() -> LayerSpectra:
    rng = random.Random(3)
    layers = []
    for i, name in enumerate(LAYERS):
        rows = 10 if name == "fc" else 16 * 2 ** min(2, (i + 5) // 6 - 1 if i else 0)
        values = sorted(
            (3.2 * math.exp(-j / rows * (1 + i * 0.12)) * rng.uniform(0.9, 1.1) for j in range(rows)), reverse=True
        )
        total, energy, partial = sum(values), sum(v * v for v in values), 0.0
        rank = next(r for r in range(1, rows + 1) if sum(v * v for v in values[:r]) >= 0.99 * energy)
        partial = math.exp(-sum(v / total * math.log(v / total) for v in values))
        layers.append(
            LayerSpectrum(
                name=name,
                type="Linear" if name == "fc" else "Conv2d",
                rows=rows,
                columns=rows * 9,
                singular_values=tuple(values),
                stable_rank=energy / values[0] ** 2,
                effective_rank=partial,
                rank_for_99=rank,
                condition_number=values[0] / values[-1],
            )
        )
    return LayerSpectra(layers=tuple(layers), redundancy=0.27)


def anatomy() -> Anatomy:
    layers = tuple(
        LayerAnatomy(
            name=name,
            type="Linear" if name == "fc" else "Conv2d",
            output_shape=(10,) if name == "fc" else (16 * 2 ** (i // 7), 32 >> (i // 7), 32 >> (i // 7)),
            parameters=432 * 4 ** (i // 7),
            flops=4_718_592,
            detail="3×3",
        )
        for i, name in enumerate(LAYERS)
    )
    blocks = tuple(
        BlockAnatomy(
            name=f"layer{s}.{b}",
            shape="basic",
            skip="pad" if s > 1 and b == 0 else "identity",
            downsamples=s > 1 and b == 0,
            norm_placement="post-activation",
        )
        for s in (1, 2, 3)
        for b in (0, 1, 2)
    )
    return Anatomy(
        model="resnet20",
        input_shape=(3, 32, 32),
        classes=10,
        parameters=272_474,
        trainable_parameters=272_474,
        buffers=1_396,
        flops=81_600_000,
        depth=20,
        layers=layers,
        blocks=blocks,
        normalizes_input=True,
    )


def training() -> TrainingRun:
    epochs = tuple(
        EpochSummary(
            epoch=i,
            steps=98,
            loss=2.1 * math.exp(-i / 6) + 0.1,
            accuracy=1 - 0.75 * math.exp(-i / 5),
            learning_rate=0.1 * (1 + math.cos(math.pi * i / 20)) / 2,
            gradient_norm=1.2 + 0.02 * i,
            images_per_second=2400,
            seconds=20.3,
            validation_accuracy=0.92 - 0.7 * math.exp(-i / 4),
        )
        for i in range(20)
    )
    return TrainingRun(
        recipe="cifar-quick",
        model="resnet20",
        data="cifar10",
        seed=0,
        epochs=epochs,
        seconds=406,
        n=50_000,
        time_split=TimeSplit(images=12.1, network=361.4, update=32.5, validation=8.3, saving=0.9),
    )


def sample_gallery(classes: Sequence[str]) -> SampleGallery:
    """Ninety samples of three fates in turn: every third wrong before, every third broken, every third held."""
    k, columns, n = len(classes), 20, 90
    sheet = Image.new("RGB", (columns * 32, -(-n // columns) * 32))
    pictures = [Image.open(io.BytesIO(base64.b64decode(png(200 + i)))) for i in range(9)]
    samples = []
    for i in range(n):
        sheet.paste(pictures[i % 9], (i % columns * 32, i // columns * 32))
        label, fate = i % k, i % 3
        samples.append(
            PicturedSample(
                sample_id=f"test/{i}",
                label=label,
                before=(label + 1) % k if fate == 0 else label,
                confidence_before=0.6 + i / 300,
                after=label if fate == 2 else (label + 1) % k,
                confidence_after=0.9,
                steps=3 if fate == 1 else None,
            )
        )
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return SampleGallery(
        attack="pgd",
        norm="linf",
        epsilon=8 / 255,
        n=1000,
        wrong=83,
        broken=817,
        held=100,
        classes=tuple(classes),
        tile=(32, 32),
        columns=columns,
        sheet=base64.b64encode(buffer.getvalue()).decode(),
        samples=tuple(samples),
    )
