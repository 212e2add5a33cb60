"""Does random noise do far less than a gradient step of the same size?"""

from __future__ import annotations

from torch import Tensor

from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.methods.gradient import Noise, SignedSteps
from assay.attacks.options import AttackOptions
from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import difference, drawn, mean_point
from assay.claims.networks import Network, trained_network
from assay.data.dataset import ImageDataset
from assay.data.selection import evenly_spaced
from assay.records.claims import Chart, ClaimEvidence

EPSILONS = (2, 4, 8, 16)  # in 255ths
DECIDING = 8
DRAWS = 20
GRADIENT, NOISE = "one gradient step", f"worst of {DRAWS} noises"


@register_claim(
    "attack-random",
    "Random noise of the same size does far less than a gradient step.",
    decides="Example by example at 8/255: the share of images broken by one signed step minus that broken by the worst "
    "of 20 random points, more than 5 points; and the rise of the loss, more than 0.1 nats.",
    would_change="A network trained with noise or against an adversary; a size so large that noise alone hides the "
    "image, or so small that neither does anything.",
    references=(
        "Fawzi, Moosavi-Dezfooli and Frossard 2016, Robustness of classifiers: from adversarial to random noise, "
        "arXiv:1608.08967",
        "Goodfellow, Shlens and Szegedy 2015, Explaining and harnessing adversarial examples, arXiv:1412.6572",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """Loss and answers of each image after one signed step, and after the worst of 20 random points of its ball."""
    network = trained_network(settings)
    images = evenly_spaced(network.test, settings.pick(tiny=40, quick=300, full=2000))
    attacks: dict[str, AttackOptions] = {GRADIENT: SignedSteps(steps=1), NOISE: Noise(draws=DRAWS)}
    losses, wrong, points = {}, {}, []
    for size in EPSILONS:
        for name, attack in attacks.items():
            rise, fooled = _after(network, images, attack, epsilon=size / 255, seed=settings.seed)
            losses[name, size], wrong[name, size] = rise, fooled
            points.append(mean_point((100 * fooled).tolist(), x=size, series=name, within=(0, 100)))
    gradient, noise = (GRADIENT, DECIDING), (NOISE, DECIDING)
    return ClaimEvidence(
        how=f"{len(images)} test images of {settings.data}, {network.name}, one by one: a step of ε along the sign "
        f"of the gradient against the worst of {DRAWS} random points of the ball of radius ε, half of them on its "
        "border.",
        samples=tuple(
            difference(f"{what} at 8/255, gradient minus noise", values, unit, "increase", margin, over="images")
            for what, values, unit, margin in (
                ("images broken", 100 * (wrong[gradient] - wrong[noise]), "points", 5.0),
                ("rise of the loss", losses[gradient] - losses[noise], "nats", 0.1),
            )
        ),
        charts=(
            Chart(
                finding=f"At 8/255 one gradient step breaks {100 * float(wrong[gradient].mean()):.0f} % of the images, "
                f"noise {100 * float(wrong[noise].mean()):.0f} %",
                **drawn("line", x="ε, in 255ths of the pixel range", y="images broken, %", x_scale="log"),
                points=tuple(points),
                note="Of all images, those right before and wrong after. Band: 95 % interval.",
            ),
        ),
        notes=(
            "In a ball of many dimensions almost every direction is nearly orthogonal to the gradient: noise moves the "
            "linearised loss by about ε‖g‖₂, the sign step by ε‖g‖₁, which is up to √(number of pixels) times as much.",
        ),
    )


def _after(
    network: Network, images: ImageDataset, attack: AttackOptions, *, epsilon: float, seed: int
) -> tuple[Tensor, Tensor]:
    """float64 (N,) each: by how much the loss rose at its worst step, and whether the image was broken."""
    result = measure_robust_accuracy(network.model, images, attack=attack, epsilon=epsilon, seed=seed).result
    assert result.trace is not None
    rise = result.trace.losses.amax(dim=1) - result.trace.losses[:, 0]
    return rise.double(), (result.clean_correct & ~result.robust).double()
