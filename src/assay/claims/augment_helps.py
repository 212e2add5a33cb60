"""Does each of the twelve operations improve accuracy?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay.augment.operations import TWELVE, find_operation, levels_of
from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import drawn, mean_point, one_table
from assay.claims.networks import TrainedNetwork, compared, short_recipe, train_side_by_side
from assay.claims.rule import number
from assay.data.dataset import ImageDataset
from assay.data.selection import evenly_spaced
from assay.diagnostics.invariance import measure_invariance
from assay.records.accuracy import Invariance
from assay.records.claims import Chart, ClaimEvidence, Point
from assay.training.recipes import Recipe
from assay.training.sections import PolicyAugment

NOTHING = "nothing"
POLICIES = ("crop(2)", "randaugment(2, 9)", "trivialaugment")
LEVEL = 3  # of five strengths: clearly seen, and still the same image
SHARE = 0.5  # of the images, so that the untouched ones are trained on as well


@register_claim(
    "augment-helps",
    "Each of the twelve image operations improves accuracy.",
    decides="Accuracy on untouched test images, trained with each operation alone against nothing, paired over the "
    "seeds: above 0 points for every one of them.",
    would_change="Longer training, in which augmentation has time to pay; other data (digits are upright and of one "
    "size, photographs are not); testing under the operations, where training with them does help.",
    references=(
        "Cubuk et al. 2019, AutoAugment, arXiv:1805.09501",
        "Cubuk et al. 2020, RandAugment (what each operation adds, too), arXiv:1909.13719",
        "Müller and Hutter 2021, TrivialAugment, arXiv:2103.10158",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """A network trained with each operation alone and with policies; its accuracy untouched and under each."""
    side = settings.pick(tiny=12, quick=16, full=None)
    train, test = settings.train(side=side), settings.test(side=side)
    names = [name for name in TWELVE if name != "Color" or train.shape[0] == 3]
    names = names[: settings.pick(tiny=2, quick=12, full=12)]
    seeds = settings.seeds(settings.pick(tiny=2, quick=5, full=5))
    policies = {NOTHING: "", **{name: _alone(name, train) for name in names}}
    policies |= {policy: policy for policy in POLICIES[: settings.pick(tiny=1, quick=3, full=3)]}
    recipes = {name: _recipe(settings, train, policy) for name, policy in policies.items()}
    trained = train_side_by_side(recipes, train, test, seeds=seeds)
    shown = evenly_spaced(test, settings.pick(tiny=20, quick=100, full=1000))
    under = {name: measure_invariance(each[0].model, shown, operations=names) for name, each in trained.items()}
    left_out = "" if train.shape[0] == 3 else " (without Color, which does nothing to greyscale images)"
    return ClaimEvidence(
        how=f"A small convolutional network on {train.name} at {train.shape[1]}×{train.shape[2]} pixels, trained for "
        f"{len(trained[NOTHING][0].steps)} steps with each operation alone on half of the images{left_out}, with "
        f"policies, and with nothing; {len(seeds)} seeds, the same batches; accuracy on {len(test)} untouched test "
        f"images, and on {len(shown)} of them under each operation at five strengths.",
        samples=tuple(
            compared(
                "accuracy",
                f", {name} minus nothing",
                trained[name],
                trained[NOTHING],
                "increase",
                0.0,
                decides=name in names,
            )
            for name in policies
            if name != NOTHING
        ),
        charts=(_gains(trained), _own(under, names)),
        tables=one_table(
            "Accuracy in % of what was trained with the row, tested under the column; the first seed",
            ("trained with", "untouched", *names),
            (
                (name, *(round(100 * x, 1) for x in (i.clean.accuracy, *(o.mean_accuracy for o in i.operations))))
                for name, i in under.items()
            ),
        ),
        notes=(
            "Every operation asks the network for an invariance, and helps untouched accuracy only where the data has "
            "it and lacks examples of it.",
            "The sentence is about each: one operation that does not help refutes it, and with so many parts each "
            "interval is wider than 95 %.",
        ),
    )


def _alone(name: str, data: ImageDataset) -> str:
    """The policy that does one operation to half of the images, drawn between the two ends of the third strength."""
    _, height, width = data.shape
    operation = find_operation(name)
    if not operation.takes_magnitude:
        return f"{name.lower()}(p={SHARE})"
    low, high = levels_of(operation, height=height, width=width)[LEVEL - 1]
    return f"{name.lower()}({low:g}, {high:g}, p={SHARE})"


def _recipe(settings: Settings, data: ImageDataset, policy: str) -> Recipe:
    widths = settings.pick(tiny=(4, 8, 8), quick=(16, 32, 32), full=(32, 64, 64))
    recipe = short_recipe(
        data,
        name="augment-helps",
        model="speednet",
        options={"widths": widths, "logit_scale": 1.0},  # logits scaled down learn too slowly for so few steps
        steps=settings.pick(tiny=4, quick=110, full=1600),
        learning_rate=0.1,
    )
    return recipe.model_copy(update={"augment": PolicyAugment(policy=policy)}) if policy else recipe


def _gains(trained: Mapping[str, Sequence[TrainedNetwork]]) -> Chart:
    means = {name: mean_point((one.accuracy for one in each), x=name).y for name, each in trained.items()}
    base = means.pop(NOTHING)
    points = [Point(x=name, y=mean - base) for name, mean in means.items()]
    helped = sum(point.y > 0 for point in points)
    best = max(points, key=lambda point: point.y)
    return Chart(
        finding=f"{helped} of {len(points)} raise the mean accuracy from {base:.1f} %; the best, {best.x}, changes "
        f"it by {number(best.y)} points",
        **drawn("bars", x="trained with", y="accuracy over that with nothing, points", x_scale="names"),
        points=tuple(points),
        note="Means over the seeds; the intervals are in the table of effects.",
    )


def _own(under: Mapping[str, Invariance], names: Sequence[str]) -> Chart:
    points, better = [], 0
    for place, name in enumerate(names):
        without, own = (100 * under[key].operations[place].mean_accuracy for key in (NOTHING, name))
        points += [Point(series="trained with nothing", x=name, y=without)]
        points += [Point(series="trained with it", x=name, y=own)]
        better += own > without
    return Chart(
        finding=f"Under the operation it was trained with, a network is better for {better} of {len(names)} operations",
        **drawn("bars", x="tested under", y="mean accuracy over five strengths, %", x_scale="names"),
        points=tuple(points),
        note="The first of the seeds.",
    )
