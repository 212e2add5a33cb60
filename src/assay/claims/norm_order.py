"""Is BatchNorm better before the rectifier, or after it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import curve_points, drawn, mean_point, table
from assay.claims.networks import TrainedNetwork, compared, means, short_recipe, small_images, train_side_by_side
from assay.data.dataset import ImageDataset
from assay.diagnostics.depth import measure_gradient_flow
from assay.records.claims import Chart, ClaimEvidence, Grid, Point
from assay.records.gradients import GradientFlow, LayerGradient
from assay.training.recipes import Recipe

BEFORE, AFTER = "BatchNorm, then ReLU", "ReLU, then BatchNorm"
MARGIN = 0.5  # points of accuracy


@register_claim(
    "norm-order",
    "BatchNorm before ReLU beats BatchNorm after it.",
    decides="The same network in both orders, paired over the seeds: test accuracy more than 0.5 points higher with "
    "BatchNorm first.",
    would_change="Another network, longer training or larger images. A plain stack has no addition whose result goes "
    "without a rectifier in the one order.",
    references=(
        "Ioffe and Szegedy 2015, Batch normalization, section 3.2, arXiv:1502.03167",
        "Mishkin, Sergievskiy and Matas 2017, Systematic evaluation of CNN advances on the ImageNet, arXiv:1606.02228",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """One ResNet in both orders: test accuracy, and what the two feed their convolutions after training."""
    train, test = small_images(settings)
    seeds = settings.seeds(settings.pick(tiny=2, quick=16, full=10))
    recipes = _recipes(settings, train)
    trained = train_side_by_side(recipes, train, test, seeds=seeds)
    before, after = trained[BEFORE], trained[AFTER]
    flows = {name: [measure_gradient_flow(one.model, test, n=64) for one in each] for name, each in trained.items()}
    return ClaimEvidence(
        how=f"{recipes[BEFORE].model} in both orders, {len(before[0].steps)} steps of SGD on {train.name} at "
        f"{train.shape[1]}×{train.shape[2]} pixels, {len(seeds)} seeds, the same batches; accuracy on {len(test)} test "
        "images.",
        samples=(
            compared("accuracy", ", BatchNorm before ReLU minus after", before, after, "increase", MARGIN),
            compared(
                "training_loss", ", BatchNorm before ReLU minus after", before, after, "decrease", 0.01, decides=False
            ),
        ),
        charts=(_accuracies(trained), _activations(flows)),
        tables=(_statistics(trained, flows, test),),
        notes=(
            "After ReLU, BatchNorm hands the next convolution a mean of 0 and a variance of 1; before it, half of the "
            "entries are cut off and the mean is positive. Where the rectifier comes first, the block ends with its "
            "norm, and nothing is rectified after the addition.",
        ),
    )


def _recipes(settings: Settings, data: ImageDataset) -> Mapping[str, Recipe]:
    steps = settings.pick(tiny=4, quick=88, full=800)
    model = settings.pick(tiny="resnet8", quick="resnet14", full="resnet20")
    recipe = short_recipe(data, name="norm-order", model=model, steps=steps)
    orders = {BEFORE: "bn-relu", AFTER: "relu-bn"}
    return {name: recipe.model_copy(update={"model_options": {"norm_order": order}}) for name, order in orders.items()}


def _norms(flow: GradientFlow) -> list[LayerGradient]:
    return [layer for layer in flow.layers if layer.type == "BatchNorm2d"]


def _accuracies(trained: Mapping[str, Sequence[TrainedNetwork]]) -> Chart:
    points = [
        Point(series=name, x=str(seed), y=one.accuracy)
        for name, each in trained.items()
        for seed, one in enumerate(each, start=1)
    ]
    means = {name: mean_point((one.accuracy for one in each), x=name).y for name, each in trained.items()}
    better = sum(a.accuracy > b.accuracy for a, b in zip(trained[BEFORE], trained[AFTER], strict=True))
    return Chart(
        finding=f"{means[BEFORE]:.1f} % before and {means[AFTER]:.1f} % after: BatchNorm first wins {better} of "
        f"{len(trained[BEFORE])} seeds",
        **drawn("points", x="seed, the first is 1", y="test accuracy, %", x_scale="names"),
        points=tuple(points),
    )


def _activations(flows: Mapping[str, Sequence[GradientFlow]]) -> Chart:
    curves = {name: [layer.activation for layer in _norms(each[0])] for name, each in flows.items()}
    most = {name: max(curve) for name, curve in curves.items()}
    return Chart(
        finding=f"After training the outputs of the norms reach {most[BEFORE]:.2f} in the one order and "
        f"{most[AFTER]:.2f} in the other",
        **drawn("line", x="BatchNorm, from the image on", y="root mean square of its output"),
        points=curve_points(curves, start=1),
        note="The first of the seeds, test images.",
    )


def _statistics(
    trained: Mapping[str, Sequence[TrainedNetwork]], flows: Mapping[str, Sequence[GradientFlow]], test: ImageDataset
) -> Grid:
    layers = {name: [layer for flow in each for layer in _norms(flow)] for name, each in flows.items()}
    return table(
        f"Means over the seeds, {len(test)} test images",
        ("order", "accuracy, %", "training loss, nats", "norm output, RMS", "its gradient, RMS"),
        (
            (
                name,
                *means(each, "accuracy", "training_loss"),
                *(fmean(getattr(one, of) for one in layers[name]) for of in ("activation", "activation_gradient")),
            )
            for name, each in trained.items()
        ),
    )
