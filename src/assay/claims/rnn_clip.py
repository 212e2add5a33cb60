"""Does clipping prevent exploding gradients?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import nn

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import drawn, fact, one_table, quotients, ratio
from assay.claims.networks import TrainedNetwork, compared, mean_curve, means, short_recipe, train_side_by_side
from assay.claims.rule import number
from assay.data.dataset import ImageDataset
from assay.models.sequence import set_recurrent
from assay.records.claims import Chart, ClaimEvidence, Point, Reference
from assay.training.recipes import Recipe
from assay.training.sections import ConstantSchedule, GradientClip

GAIN, LIMIT = 2.0, 1.0
PLAIN, CLIPPED = "without clipping", "clipped at 1"
LOSS_MARGIN = 0.05  # nats


@register_claim(
    "rnn-clip",
    "Clipping prevents exploding gradients.",
    decides="The same SGD with and without clipping at norm 1: no step above the limit, steps without clipping more "
    "than twice as long, and a training loss that is lower by more than 0.05 nats with clipping.",
    would_change="Reading it of the gradient itself: clipping scales what has already exploded, so before clipping it "
    "is as large as ever. Adam, whose steps are bounded anyway, or a smaller learning rate.",
    references=(
        "Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks, arXiv:1211.5063",
        "Zhang, He, Sra and Jadbabaie 2020, Why gradient clipping accelerates training, arXiv:1905.11881",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """SGD on a tanh RNN that reads images row by row, its orthogonal W times 2, with and without clipping."""
    train, test = settings.train(), settings.test()
    seeds = settings.seeds(settings.pick(tiny=2, quick=8, full=10))
    trained = train_side_by_side(_recipes(settings, train), train, test, seeds=seeds, prepare=explode)
    clipped, plain = trained[CLIPPED], trained[PLAIN]
    largest = {name: [max(step.gradient_norm for step in one.steps) for one in each] for name, each in trained.items()}
    most = min(max(largest[CLIPPED]), LIMIT)
    return ClaimEvidence(
        how=f"A tanh RNN that reads {train.name} row by row, W orthogonal times {GAIN:g}, SGD for "
        f"{len(plain[0].steps)} steps, {len(seeds)} seeds, the same batches with and without clipping the global norm "
        f"at {LIMIT:g}: the norm of the gradient before clipping, that of what reaches the weights, and the loss.",
        facts=(
            fact(
                "largest norm that reaches the weights with clipping", f"at most {LIMIT:g}", number(most), most <= LIMIT
            ),
        ),
        samples=(
            compared("training_loss", ", clipped minus not", clipped, plain, "decrease", LOSS_MARGIN),
            ratio(
                "largest step, without clipping over with it",
                quotients(largest[PLAIN], [min(LIMIT, norm) for norm in largest[CLIPPED]]),
                "increase",
                2.0,
            ),
            ratio(
                "largest gradient before clipping, over the limit",
                [norm / LIMIT for norm in largest[CLIPPED]],
                "no increase",
                2.0,
                decides=False,
            ),
        ),
        charts=(_losses(trained), _gradients(trained, max(largest[CLIPPED]))),
        tables=one_table(
            "Means over the seeds",
            ("run", "training loss, nats", "accuracy, %", "largest gradient", "diverged"),
            (
                (
                    name,
                    *means(each, "training_loss", "accuracy"),
                    fmean(largest[name]),
                    sum(one.diverged for one in each),
                )
                for name, each in trained.items()
            ),
        ),
        notes=(
            "Clipping bounds the step, not the gradient: what backpropagation computes explodes as before, and is then "
            "scaled down. The direction stays that of the exploded gradient.",
            "An optimizer that divides by the gradient's own size, such as Adam, bounds the step without clipping.",
        ),
    )


@torch.no_grad()
def explode(model: nn.Module) -> None:
    """Every recurrent matrix becomes orthogonal times 2: it doubles whatever tanh does not hold down."""
    for module in model.modules():
        if isinstance(module, nn.RNN):
            weight = module.weight_hh_l0
            assert isinstance(weight, torch.Tensor)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(round(1e6 * float(weight.abs().sum())))  # follows from the model's seed
                set_recurrent(module, "orthogonal")
            weight.mul_(GAIN)


def _recipes(settings: Settings, data: ImageDataset) -> Mapping[str, Recipe]:
    recipe = short_recipe(
        data,
        name="clipping",
        model="rnn",
        options={"by": "row", "hidden": settings.pick(tiny=16, quick=64, full=128)},
        steps=settings.pick(tiny=11, quick=132, full=800),
        learning_rate=0.1,
    )
    clip = GradientClip(name="norm", limit=LIMIT)
    recipe = recipe.model_copy(update={"schedule": ConstantSchedule()})
    return {PLAIN: recipe, CLIPPED: recipe.model_copy(update={"clip": clip})}


def _losses(trained: Mapping[str, Sequence[TrainedNetwork]]) -> Chart:
    final = {name: fmean(one.training_loss for one in each) for name, each in trained.items()}
    return Chart(
        finding=f"After as many steps the loss is {final[CLIPPED]:.2f} with clipping and {final[PLAIN]:.2f} without",
        **drawn("line", x="step", y="training loss, nats"),
        points=tuple(
            point for name, each in trained.items() for point in mean_curve(each, lambda step: step.loss, series=name)
        ),
        note="Band: 95 % interval over the seeds.",
    )


def _gradients(trained: Mapping[str, Sequence[TrainedNetwork]], most: float) -> Chart:
    points = [
        Point(series=f"{name}, before" if name == CLIPPED else name, x=step.step, y=step.gradient_norm)
        for name, each in trained.items()
        for step in each[0].steps[:: max(1, len(each[0].steps) // 80)]
    ]
    return Chart(
        finding=f"Before it is clipped the gradient still reaches {number(most)}",
        **drawn("line", x="step", y="global norm of the gradient", y_scale="log"),
        points=tuple(points),
        references=(Reference(y=LIMIT, name="the limit"),),
        note="The first of the seeds; with clipping, the norm that reaches the weights is never above the limit.",
    )
