"""Does decaying biases and norm parameters hurt?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import drawn, mean_point, table
from assay.claims.networks import TrainedNetwork, Value, compared, means, short_recipe, small_images, train_side_by_side
from assay.data.dataset import ImageDataset
from assay.models.sources import load_model
from assay.records.claims import Chart, ClaimEvidence, Expectation, Grid, Point
from assay.training.param_groups import ROLES, Role, split_parameters
from assay.training.recipes import Recipe

NETWORKS = {"ResNet-8": "resnet8", "perceptron": "mlp"}
MLP_OPTIONS = {"depth": 4, "width": 128}
DECAY = 0.01
MEASURED: tuple[tuple[Value, Expectation, float], ...] = (
    ("accuracy", "decrease", 0.5),  # points
    ("training_loss", "increase", 0.01),  # nats; it does not decide
)
TrainedArms = Mapping[frozenset[Role], Sequence[TrainedNetwork]]


@register_claim(
    "decay-bias",
    "Decaying biases and norm parameters hurts.",
    decides="Test accuracy with all groups decayed against weights alone, paired over the seeds, of a ResNet and of a "
    "perceptron without norms: more than 0.5 points lower in both.",
    would_change="A decay so strong that it takes the norms' scales to 0; large batches and long schedules, for which "
    "sparing them was recommended.",
    references=(
        "He et al. 2019, Bag of tricks for image classification, section 3.1 (no bias decay), arXiv:1812.01187",
        "Goyal et al. 2017, Accurate, large minibatch SGD, section 5.1, arXiv:1706.02677",
        "van Laarhoven 2017, L2 regularization versus batch and weight normalization, arXiv:1706.05350",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """Every subset of the three groups decayed: a ResNet, which has norms, and a perceptron, which lives by biases."""
    train, test = small_images(settings)
    seeds = settings.seeds(settings.pick(tiny=2, quick=8, full=8))
    trained = {
        name: train_side_by_side(_recipes(settings, model, train), train, test, seeds=seeds)
        for name, model in NETWORKS.items()
    }
    extremes = {name: (arms[max(arms, key=len)], arms[frozenset({"weight"})]) for name, arms in trained.items()}
    rest = " of the {}, all decayed minus weights only"
    steps = len(next(iter(trained["ResNet-8"].values()))[0].steps)
    return ClaimEvidence(
        how=f"A ResNet-8 and a perceptron without norms on {train.name} at {train.shape[1]}×{train.shape[2]} pixels, "
        f"each with every subset of its groups of parameters decayed by {DECAY:g}: norms, biases, weights; {steps} "
        f"steps of SGD, {len(seeds)} seeds, the same batches; accuracy on {len(test)} test images.",
        samples=tuple(
            compared(value, rest.format(name), all_decayed, weights_only, expects, margin, decides=value == "accuracy")
            for value, expects, margin in MEASURED
            for name, (all_decayed, weights_only) in extremes.items()
        ),
        charts=(_arms(trained),),
        tables=tuple(_table(name, arms) for name, arms in trained.items()),
        notes=(
            "Biases and norms are few, so decaying them hardly regularises; that is the usual reason to spare them. "
            "Whether it costs anything is another question, and the one measured here.",
            f"The decay is {DECAY / 5e-4:.0f} times the usual 0.0005, for a run that is so much shorter than usual: "
            "what decay does to a parameter grows with rate times decay times steps.",
        ),
    )


def _recipes(settings: Settings, model: str, data: ImageDataset) -> Mapping[frozenset[Role], Recipe]:
    recipe = short_recipe(
        data,
        name="decay-bias",
        model=model,
        options=MLP_OPTIONS if model == "mlp" else {},
        steps=settings.pick(tiny=4, quick=66, full=800),
        learning_rate=0.05 if model == "mlp" else 0.1,
    )
    split = split_parameters(load_model(model, image_shape=data.shape, classes=len(data.classes)))
    present = [role for role in ROLES if split.of(role)]
    arms = {}
    for chosen in product((True, False), repeat=len(present)):
        roles = tuple(role for role, decays in zip(present, chosen, strict=True) if decays)
        optimizer = recipe.optimizer.model_copy(update={"weight_decay": DECAY, "decay_roles": roles})
        arms[frozenset(roles)] = recipe.model_copy(update={"optimizer": optimizer})
    return arms


def _name(roles: frozenset[Role]) -> str:
    return " + ".join(role for role in ROLES if role in roles) or "nothing"


def _arms(trained: Mapping[str, TrainedArms]) -> Chart:
    points: list[Point] = []
    for name, arms in trained.items():
        ordered = sorted(arms, key=lambda roles: (len(roles), _name(roles)))
        points += [mean_point((one.accuracy for one in arms[roles]), x=_name(roles), series=name) for roles in ordered]
    resnet = {point.x: point.y for point in points if point.series == "ResNet-8"}
    everything, weights = resnet["norm + bias + weight"], resnet["weight"]
    return Chart(
        finding=f"The ResNet-8 reaches {everything:.1f} % with everything decayed and {weights:.1f} % with the weights "
        "alone",
        **drawn("points", x="what decays", y="test accuracy, %", x_scale="names"),
        points=tuple(points),
        note="Interval: 95 % over the seeds. The perceptron has no norms.",
    )


def _table(name: str, arms: TrainedArms) -> Grid:
    return table(
        f"{name}: means over the seeds",
        ("what decays", "accuracy, %", "test loss, nats", "training loss, nats"),
        ((_name(roles), *means(each, "accuracy", "test_loss", "training_loss")) for roles, each in arms.items()),
    )
