"""Is BatchNorm better before the rectifier, or after it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from assay.claims.claim import Claim, Settings
from assay.claims.side_by_side import (
    Outcome,
    accuracy,
    mean_point,
    paired,
    picture_side,
    short_recipe,
    train_side_by_side,
    training_loss,
)
from assay.data.dataset import ImageDataset
from assay.diagnostics.depth import measure_gradient_flow
from assay.records.claims import Axis, Chart, Evidence, Grid, Point, Sample
from assay.records.gradients import GradientFlow, LayerGradient
from assay.training.recipes import Recipe

BEFORE, AFTER = "BatchNorm, then ReLU", "ReLU, then BatchNorm"
MARGIN = 0.5  # points of accuracy


def measure(settings: Settings) -> Evidence:
    """One ResNet in both orders: test accuracy, and what the two feed their convolutions after training."""
    side = picture_side(settings)
    train, test = settings.train(side=side), settings.test(side=side)
    seeds = settings.seeds(settings.pick(tiny=2, quick=16, full=10))
    found = train_side_by_side(_recipes(settings, train), train, test, seeds=seeds)
    before, after = found[BEFORE], found[AFTER]
    flows = {name: [measure_gradient_flow(one.model, test, n=64) for one in each] for name, each in found.items()}
    return Evidence(
        how=f"{_network(settings)} in both orders, {len(before[0].steps)} steps of SGD on {train.name} at "
        f"{train.shape[1]}×{train.shape[2]} pixels, {len(seeds)} seeds, the same batches; accuracy on {len(test)} test "
        "images.",
        samples=(
            Sample(
                name="accuracy, BatchNorm before ReLU minus after",
                unit="points",
                values=paired(before, after, accuracy),
                expects="increase",
                margin=MARGIN,
            ),
            Sample(
                name="training loss, BatchNorm before ReLU minus after",
                unit="nats",
                values=paired(before, after, training_loss),
                expects="decrease",
                margin=0.01,
                decides=False,
            ),
        ),
        charts=(_accuracies(found), _activations(flows)),
        tables=(_statistics(found, flows, test),),
        notes=(
            "After ReLU, BatchNorm hands the next convolution a mean of 0 and a variance of 1; before it, half of the "
            "entries are cut off and the mean is positive. Where the rectifier comes first, the block ends with its "
            "norm, and nothing is rectified after the addition.",
        ),
    )


def _network(settings: Settings) -> str:
    return settings.pick(tiny="resnet8", quick="resnet14", full="resnet20")


def _recipes(settings: Settings, data: ImageDataset) -> Mapping[str, Recipe]:
    steps = settings.pick(tiny=4, quick=88, full=800)
    recipe = short_recipe(data, name="norm-order", model=_network(settings), steps=steps)
    orders = {BEFORE: "bn-relu", AFTER: "relu-bn"}
    return {name: recipe.model_copy(update={"model_options": {"norm_order": order}}) for name, order in orders.items()}


def _norms(flow: GradientFlow) -> list[LayerGradient]:
    return [layer for layer in flow.layers if layer.type == "BatchNorm2d"]


def _accuracies(found: Mapping[str, Sequence[Outcome]]) -> Chart:
    points = [
        Point(series=name, x=str(seed), y=one.accuracy)
        for name, each in found.items()
        for seed, one in enumerate(each, start=1)
    ]
    means = {name: mean_point(each, accuracy, x=name).y for name, each in found.items()}
    better = sum(a.accuracy > b.accuracy for a, b in zip(found[BEFORE], found[AFTER], strict=True))
    return Chart(
        finding=f"{means[BEFORE]:.1f} % before and {means[AFTER]:.1f} % after: BatchNorm first wins {better} of "
        f"{len(found[BEFORE])} seeds",
        mark="points",
        x=Axis(title="seed, the first is 1", scale="names"),
        y=Axis(title="test accuracy, %"),
        points=tuple(points),
    )


def _activations(flows: Mapping[str, Sequence[GradientFlow]]) -> Chart:
    curves = {name: [layer.activation for layer in _norms(each[0])] for name, each in flows.items()}
    most = {name: max(curve) for name, curve in curves.items()}
    return Chart(
        finding=f"After training the outputs of the norms reach {most[BEFORE]:.2f} in the one order and "
        f"{most[AFTER]:.2f} in the other",
        mark="line",
        x=Axis(title="BatchNorm, from the image on"),
        y=Axis(title="root mean square of its output"),
        points=tuple(
            Point(series=name, x=place, y=value)
            for name, curve in curves.items()
            for place, value in enumerate(curve, start=1)
        ),
        note="The first of the seeds, test images.",
    )


def _statistics(
    found: Mapping[str, Sequence[Outcome]], flows: Mapping[str, Sequence[GradientFlow]], test: ImageDataset
) -> Grid:
    rows = []
    for name, each in found.items():
        layers = [layer for flow in flows[name] for layer in _norms(flow)]
        rows.append(
            (
                name,
                fmean(map(accuracy, each)),
                fmean(map(training_loss, each)),
                fmean(layer.activation for layer in layers),
                fmean(layer.activation_gradient for layer in layers),
            )
        )
    return Grid(
        caption=f"Means over the seeds, {len(test)} test images",
        columns=("order", "accuracy, %", "training loss, nats", "norm output, RMS", "its gradient, RMS"),
        rows=tuple(rows),
    )


NORM_ORDER = Claim(
    id="norm-order",
    sentence="BatchNorm before ReLU beats BatchNorm after it.",
    decides="The same network in both orders, paired over the seeds: test accuracy more than 0.5 points higher with "
    "BatchNorm first.",
    would_change="Another network, longer training or larger pictures. A plain stack has no addition whose result goes "
    "without a rectifier in the one order.",
    references=(
        "Ioffe and Szegedy 2015, Batch normalization, section 3.2, arXiv:1502.03167",
        "Mishkin, Sergievskiy and Matas 2017, Systematic evaluation of CNN advances on the ImageNet, arXiv:1606.02228",
    ),
    measure=measure,
)
