"""Does a bottleneck block keep capacity at less compute?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import drawn, fact, mean_point, one_table
from assay.claims.networks import TrainedNetwork, compared, means, short_recipe, small_images, train_side_by_side
from assay.data.dataset import ImageDataset, to_unit_range
from assay.models.anatomy import measure_anatomy
from assay.models.sources import load_model
from assay.records.anatomy import Anatomy
from assay.records.claims import Chart, ClaimEvidence, Reference
from assay.runtime.latency import measure_latencies

BASIC, SAME_CHANNELS, SAME_FLOPS = "basic", "bottleneck, equal channels", "bottleneck, equal FLOPs"
MODEL = "resnet20"  # 20 = 6·3 + 2 = 9·2 + 2: nine basic blocks or six bottlenecks
WIDTHS = tuple(width / 16 for width in range(12, 29))
MARGIN = 1.0  # points of accuracy
MEASURES = ("accuracy, %", "training loss, nats")


@register_claim(
    "bottleneck",
    "A 1×1–3×3–1×1 block keeps capacity at less compute.",
    decides="Against basic blocks of equal depth: with equal channels fewer parameters and FLOPs and an accuracy at "
    "most 1 point lower, and with equal FLOPs an accuracy at most 1 point lower.",
    would_change="Depth and width: the design was made for networks of 50 layers and more with 256 channels between "
    "blocks, where a quarter of them is still 64.",
    references=(
        "He, Zhang, Ren and Sun 2016, Deep residual learning, section 4.1 and figure 5, arXiv:1512.03385",
        "Zagoruyko and Komodakis 2016, Wide residual networks, arXiv:1605.07146",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """ResNet-20 of basic blocks, of bottlenecks with as many channels between blocks, and with as many FLOPs."""
    train, test = small_images(settings)
    seeds = settings.seeds(settings.pick(tiny=2, quick=6, full=8))
    options = choose_networks(train)
    anatomies = {name: _anatomy(chosen, train) for name, chosen in options.items()}
    steps = settings.pick(tiny=2, quick=88, full=800)
    recipes = {
        name: short_recipe(train, name="bottleneck", model=MODEL, options=chosen, steps=steps)
        for name, chosen in options.items()
    }
    trained = train_side_by_side(recipes, train, test, seeds=seeds)
    models = [each[0].model for each in trained.values()]
    batch = to_unit_range(test.images[:64]).contiguous(memory_format=torch.channels_last)
    latencies = dict(zip(trained, measure_latencies(models, batch, budget=1.0), strict=True))
    basic, same = anatomies[BASIC], anatomies[SAME_CHANNELS]
    costs = {
        name: (of.parameters / 1e3, of.flops / 1e6, 1e3 * latencies[name].fastest) for name, of in anatomies.items()
    }
    return ClaimEvidence(
        how=f"Networks of depth {basic.depth} on {train.name} at {train.shape[1]}×{train.shape[2]} pixels: basic "
        "blocks, bottlenecks whose blocks hand on as many channels (a quarter of them inside), and bottlenecks so wide "
        f"that the FLOPs are equal; {len(trained[BASIC][0].steps)} steps of SGD, {len(seeds)} seeds, the same batches.",
        facts=tuple(
            fact(f"{name} at equal depth and channels, bottleneck over basic", "below 1", f"{share:.2f}", share < 1)
            for name, share in (("parameters", same.parameters / basic.parameters), ("FLOPs", same.flops / basic.flops))
        ),
        samples=(
            *(
                compared("accuracy", f", {name} minus basic", trained[name], trained[BASIC], "no decrease", MARGIN)
                for name in (SAME_CHANNELS, SAME_FLOPS)
            ),
            compared(
                "training_loss",
                f", {SAME_CHANNELS} minus basic",
                trained[SAME_CHANNELS],
                trained[BASIC],
                "no increase",
                0.02,
                decides=False,
            ),
        ),
        charts=(_costs(trained, anatomies),),
        tables=one_table(
            f"What each costs and what it gives; latency of {len(batch)} images",
            ("blocks", "parameters, thousands", "MFLOPs an image", "fastest pass, ms", *MEASURES),
            ((name, *costs[name], *means(each, "accuracy", "training_loss")) for name, each in trained.items()),
        ),
        notes=(
            "Fewer FLOPs are not as much less time: 1×1 convolutions and norms on many channels move memory more than "
            "they compute. The table has both.",
        ),
    )


def choose_networks(data: ImageDataset) -> Mapping[str, Mapping[str, object]]:
    """The three networks' options; of sixteenths of a width, the one whose FLOPs come nearest to the basic blocks'."""
    basic: Mapping[str, object] = {"shortcut": "B"}
    bottleneck = {"shortcut": "B", "block": "bottleneck"}
    wanted = _anatomy(basic, data).flops
    nearest = min(WIDTHS, key=lambda width: abs(_anatomy({**bottleneck, "width": width}, data).flops - wanted))
    return {BASIC: basic, SAME_CHANNELS: {**bottleneck, "width": 0.25}, SAME_FLOPS: {**bottleneck, "width": nearest}}


def _anatomy(options: Mapping[str, object], data: ImageDataset) -> Anatomy:
    chosen = ",".join(f"{key}={value}" for key, value in options.items())
    return measure_anatomy(load_model(f"{MODEL},{chosen}", image_shape=data.shape, classes=10), image_shape=data.shape)


def _costs(trained: Mapping[str, Sequence[TrainedNetwork]], anatomies: Mapping[str, Anatomy]) -> Chart:
    points = [
        mean_point((one.accuracy for one in each), x=anatomies[name].flops / 1e6, series=name)
        for name, each in trained.items()
    ]
    means = {point.series: point.y for point in points}
    share = anatomies[SAME_CHANNELS].flops / anatomies[BASIC].flops
    return Chart(
        finding=f"With {share:.0%} of the FLOPs bottlenecks reach {means[SAME_CHANNELS]:.1f} %, with as many "
        f"{means[SAME_FLOPS]:.1f} %; basic blocks {means[BASIC]:.1f} %",
        **drawn("points", x="MFLOPs an image", y="test accuracy, %", x_scale="log"),
        points=tuple(points),
        references=(Reference(y=means[BASIC] - MARGIN, name="basic less the margin"),),
        note="Interval: 95 % over the seeds.",
    )
