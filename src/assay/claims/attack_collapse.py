"""Does an accurate network fall to about a quarter under one step of 8/255, and lower under five?"""

from __future__ import annotations

from torch import Tensor

from assay.attacks.measure import measure_epsilon_curve, measure_robust_accuracy
from assay.attacks.methods.gradient import PGD, SignedSteps
from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import difference, drawn
from assay.claims.networks import trained_network
from assay.data.selection import evenly_spaced
from assay.records.accuracy import wilson_interval
from assay.records.claims import Chart, ClaimEvidence, Point, Reference

EPSILON, STEPS = 8 / 255, 5
QUARTER, ABOUT = 25.0, 5.0  # per cent, and points to either side


@register_claim(
    "attack-collapse",
    "A 91.7 % network falls to about a quarter under one step of 8/255, and lower under five.",
    decides="Accuracy of a normally trained network after one signed step of 8/255, which must be within 5 points of "
    "25 %, and after five, which must be more than 1 point lower still.",
    would_change="Adversarial training; another network (a single step fools some more and some less); images whose "
    "classes are further apart than 8/255, such as digits.",
    references=(
        "Goodfellow, Shlens and Szegedy 2015, Explaining and harnessing adversarial examples, arXiv:1412.6572",
        "Madry et al. 2018, Towards deep learning models resistant to adversarial attacks, arXiv:1706.06083",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """Accuracy after 0 to 5 signed steps of 8/255 on the same images, and against ε under PGD."""
    network = trained_network(settings)
    images = evenly_spaced(network.test, settings.pick(tiny=60, quick=1000, full=10_000))
    attacked = measure_robust_accuracy(
        network.model, images, attack=SignedSteps(steps=STEPS), epsilon=EPSILON, seed=settings.seed
    )
    trace = attacked.result.trace
    assert trace is not None
    right = 100 * trace.correct.double()  # (N, steps + 1)
    clean, one, five = right[:, 0], right[:, 1], right[:, STEPS]
    curve = measure_epsilon_curve(
        network.model,
        evenly_spaced(network.test, settings.pick(tiny=40, quick=200, full=1000)),
        attack=PGD(steps=settings.pick(tiny=2, quick=10, full=20)),
        seed=settings.seed,
    )
    return ClaimEvidence(
        how=f"{len(images)} test images of {settings.data}, {network.name}, {clean.mean():.1f} % right untouched; "
        f"x ← x + 8/255 · sign ∇ₓℓ, {STEPS} times without projection, clipped to [0, 1] when judged.",
        samples=(
            difference(
                "accuracy after one step, minus a quarter", one - QUARTER, "points", "same", ABOUT, over="images"
            ),
            difference("accuracy, after five steps minus one", five - one, "points", "decrease", 1, over="images"),
        ),
        charts=(
            Chart(
                finding=f"From {clean.mean():.1f} % to {one.mean():.1f} % in one step, and to "
                f"{five.mean():.1f} % in five",
                **drawn("line", x="signed steps of 8/255", y="accuracy, %"),
                points=tuple(_point(step, trace.correct[:, step]) for step in range(STEPS + 1)),
                references=(Reference(y=QUARTER, name="a quarter"),),
                note="Band: 95 % interval over the images.",
            ),
            Chart(
                finding="What projected gradient descent leaves at each size of the perturbation",
                **drawn("line", x="ε, in 255ths of the pixel range", y="accuracy, %"),
                points=tuple(
                    Point(x=255 * p.epsilon, y=100 * p.accuracy, low=100 * p.low, high=100 * p.high)
                    for p in curve.points
                ),
                references=(Reference(y=QUARTER, name="a quarter"),),
                note=f"PGD of {curve.steps} steps, {curve.points[0].n} images; band: 95 % interval.",
            ),
        ),
        notes=(
            "The sentence is about a ResNet-20 of 91.7 % on CIFAR-10. Measure that one with --data cifar10 --model "
            "resnet20 --weights FILE; without them the network of the digits stands in, whose thick strokes on an even "
            "ground take more to break.",
        ),
    )


def _point(step: int, right: Tensor) -> Point:
    low, high = wilson_interval(int(right.sum()), len(right))
    return Point(x=step, y=100 * float(right.double().mean()), low=100 * low, high=100 * high)
