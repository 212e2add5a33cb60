"""Do skip connections make deep stacks trainable?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import curve_points, drawn, mean_point, one_table, quotients, ratio
from assay.claims.networks import TrainedNetwork, compared, means, short_recipe, small_images, train_side_by_side
from assay.claims.rule import number
from assay.data.dataset import ImageDataset
from assay.diagnostics.depth import measure_gradient_flow
from assay.records.claims import Chart, ClaimEvidence
from assay.records.gradients import GradientFlow
from assay.training.averaging import refresh_batchnorm
from assay.training.classifier import build_for
from assay.training.recipes import Recipe

PLAIN, RESIDUAL = "plain", "residual"
MARGIN = 0.05  # nats
Runs = Mapping[tuple[str, int], Sequence[TrainedNetwork]]


@register_claim(
    "residual-depth",
    "Skip connections make deeper plain stacks trainable.",
    decides="The training loss after equal steps: at the greatest depth more than 0.05 nats higher without skips, and "
    "without skips more than 0.05 nats higher at the greatest depth than at the least.",
    would_change="Much longer training, another learning rate (at 0.1 without a warm-up neither of the deepest "
    "learns in so few steps), an initialisation made for plain stacks, which can close the gap; shallow stacks, where "
    "there is little of it.",
    references=(
        "He, Zhang, Ren and Sun 2016, Deep residual learning for image recognition, arXiv:1512.03385",
        "Yang, Pennington, Rao, Sohl-Dickstein and Schoenholz 2019, A mean field theory of batch normalization, "
        "arXiv:1902.08129",
        "Balduzzi et al. 2017, The shattered gradients problem, arXiv:1702.08591",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """Gradients by depth before training, and the training loss after equal steps, with and without skips."""
    train, test = small_images(settings)
    depths = settings.pick(tiny=(8, 14), quick=(8, 20, 32, 56), full=(8, 14, 20, 32, 44, 56))
    seeds = settings.seeds(settings.pick(tiny=2, quick=5, full=5))
    recipes = {(kind, depth): _recipe(settings, train, kind, depth) for depth in depths for kind in (PLAIN, RESIDUAL)}
    runs = train_side_by_side(recipes, train, test, seeds=seeds)
    flows = {key: [flow_at_start(recipe, train, seed=seed) for seed in seeds] for key, recipe in recipes.items()}
    first, last = depths[0], depths[-1]
    plain, residual = runs[PLAIN, last], runs[RESIDUAL, last]
    deeper = f"stacks, depth {last} minus depth {first}"
    return ClaimEvidence(
        how=f"ResNets of depth {', '.join(map(str, depths))} and the same stacks without their skips, BatchNorm in "
        f"both, {len(plain[0].steps)} steps of SGD on {train.name} at {train.shape[1]}×{train.shape[2]} pixels, "
        f"{len(seeds)} seeds, the same batches: the training loss of the last ten, and before training the gradient of "
        "the loss with respect to the output of every convolution.",
        samples=(
            compared("training_loss", f" at depth {last}, plain minus residual", plain, residual, "increase", MARGIN),
            compared("training_loss", f" of plain {deeper}", plain, runs[PLAIN, first], "increase", MARGIN),
            compared(
                "training_loss",
                f" of residual {deeper}",
                residual,
                runs[RESIDUAL, first],
                "no increase",
                MARGIN,
                decides=False,
            ),
            ratio(
                f"growth of the gradient from the last convolution to the first at depth {last}, plain over residual",
                quotients([*map(growth, flows[PLAIN, last])], [*map(growth, flows[RESIDUAL, last])]),
                "increase",
                2.0,
                decides=False,
            ),
        ),
        charts=(_losses(runs, last), _flows(flows, last)),
        tables=one_table(
            "Means over the seeds",
            ("depth", "stack", "training loss, nats", "test accuracy, %", "gradient, first over last"),
            (
                (depth, kind, *means(each, "training_loss", "accuracy"), fmean(map(growth, flows[kind, depth])))
                for (kind, depth), each in runs.items()
            ),
        ),
        notes=(
            "BatchNorm keeps the activations of a plain stack at one size whatever its depth; going back, its "
            "gradients grow from layer to layer all the same. So what is measured is not vanishing, as the sentence "
            "is often explained.",
        ),
    )


def flow_at_start(recipe: Recipe, train: ImageDataset, *, seed: int) -> GradientFlow:
    """Gradient norms before training, with the running statistics of the data in place of 0 and 1."""
    model = build_for(recipe, train, seed=seed)
    refresh_batchnorm(model, train, samples=250)
    return measure_gradient_flow(model, train, n=64)


def growth(flow: GradientFlow) -> float:
    """‖∂ℓ/∂z‖ of the first convolution over that of the last."""
    norms = _convolutions(flow)
    return norms[0] / norms[-1]


def _convolutions(flow: GradientFlow) -> list[float]:
    return [layer.gradient_per_sample for layer in flow.layers if layer.type == "Conv2d"]


def _recipe(settings: Settings, data: ImageDataset, kind: str, depth: int) -> Recipe:
    return short_recipe(
        data,
        name=f"{kind}-{depth}",
        model=f"resnet{depth}",
        options={"skips": kind == RESIDUAL, "width": settings.pick(tiny=0.5, quick=1.0, full=1.0)},
        steps=settings.pick(tiny=4, quick=44, full=400),
        learning_rate=0.03,
    )


def _losses(runs: Runs, last: int) -> Chart:
    points = [
        mean_point((one.training_loss for one in each), x=depth, series=kind) for (kind, depth), each in runs.items()
    ]
    at_last = {point.series: point.y for point in points if point.x == last}
    return Chart(
        finding=f"At depth {last} the loss is {at_last[PLAIN]:.2f} without skips and {at_last[RESIDUAL]:.2f} with them",
        **drawn("line", x="depth, weight layers", y="training loss after equal steps, nats"),
        points=tuple(sorted(points, key=lambda point: point.series)),
        note="Band: 95 % interval over the seeds.",
    )


def _flows(flows: Mapping[tuple[str, int], Sequence[GradientFlow]], last: int) -> Chart:
    plain, residual = (growth(flows[kind, last][0]) for kind in (PLAIN, RESIDUAL))
    return Chart(
        finding=f"Before training, at depth {last}, gradients change by a factor of {number(plain)} on their way to "
        f"the first layer without skips, {number(residual)} with them",
        **drawn("line", x="convolution, from the image on", y="‖∂ℓ/∂output‖ a sample", y_scale="log"),
        points=curve_points({kind: _convolutions(flows[kind, last][0]) for kind in (PLAIN, RESIDUAL)}, start=1),
        note="The first of the seeds.",
    )
