"""Does each signed gradient step raise the loss?"""

from __future__ import annotations

from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.methods.gradient import SignedSteps
from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import counted, difference, drawn, mean_point
from assay.claims.networks import trained_network
from assay.data.selection import evenly_spaced
from assay.records.claims import Chart, ClaimEvidence, Point

EPSILON, STEPS = 8 / 255, 5


@register_claim(
    "attack-steps",
    "Each signed gradient step raises the loss.",
    decides="The mean loss over the images after each of five signed steps of 8/255 against that before; margin 0.",
    would_change="A larger step, which leaves the region where the loss is nearly linear, or a network whose loss is "
    "so saturated that its gradients underflow.",
    references=(
        "Goodfellow, Shlens and Szegedy 2015, Explaining and harnessing adversarial examples, arXiv:1412.6572",
        "Kurakin, Goodfellow and Bengio 2017, Adversarial examples in the physical world, arXiv:1607.02533",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """Cross-entropy of every image after 0 to 5 steps x ← x + ε·sign ∇ₓℓ of ε = 8/255, without projection."""
    network = trained_network(settings)
    images = evenly_spaced(network.test, settings.pick(tiny=40, quick=100, full=1000))
    attacked = measure_robust_accuracy(
        network.model, images, attack=SignedSteps(steps=STEPS), epsilon=EPSILON, seed=settings.seed
    )
    trace = attacked.result.trace
    assert trace is not None
    losses = trace.losses.double()  # (N, steps + 1)
    rises = losses.diff(dim=1)
    monotone = (rises > 0).all(dim=1)
    points = [mean_point(losses[:, step].tolist(), x=step) for step in range(STEPS + 1)]
    return ClaimEvidence(
        how=f"{len(images)} test images of {settings.data}, {network.name}, {STEPS} signed steps of 8/255 a pixel "
        "without projection; the cross-entropy of each image after each step.",
        samples=tuple(
            difference(f"loss, step {step} minus step {step - 1}", rise, "nats", "increase", 0.0, over="images")
            for step, rise in enumerate(rises.T, 1)
        ),
        facts=(
            counted(
                "images whose loss rises at every one of the steps", int(monotone.sum()), len(images), decides=False
            ),
        ),
        charts=(
            Chart(
                finding=f"The mean loss climbs from {points[0].y:.2f} to {points[-1].y:.2f} nats in five steps",
                **drawn("line", x="steps of 8/255", y="mean cross-entropy, nats"),
                points=tuple(points),
                note="Band: 95 % interval over the images.",
            ),
            Chart(
                finding=f"It climbs at every step for {float(monotone.double().mean()):.0%} of the images",
                **drawn("bars", x="step", y="images whose loss rises, %", x_scale="names"),
                points=tuple(
                    Point(x=str(step), y=100 * float((rise > 0).double().mean()))
                    for step, rise in enumerate(rises.T, 1)
                ),
            ),
        ),
        notes=(
            "The sentence is about the mean. For a single image a step along the sign is a step along the steepest "
            "direction of the linearised loss only; where the surface curves, it can overshoot.",
        ),
    )
