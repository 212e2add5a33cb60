"""Does a block's skip change dimensions only where the block downsamples?"""

from __future__ import annotations

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import drawn, fact, one_table
from assay.models.anatomy import measure_anatomy
from assay.models.sources import load_model
from assay.records.claims import Chart, ClaimEvidence, Point

SMALL, LARGE = (3, 32, 32), (3, 224, 224)
BASIC = {
    "ResNet-20, A": ("resnet20,shortcut=A", SMALL),
    "ResNet-20, B": ("resnet20,shortcut=B", SMALL),
    "ResNet-56, A": ("resnet56,shortcut=A", SMALL),
    "ResNet-56, B": ("resnet56,shortcut=B", SMALL),
    "ResNet-18, B": ("resnet18", LARGE),
}
BOTTLENECK = {"ResNet-50, B": ("resnet50", LARGE)}


@register_claim(
    "residual-shape",
    "A block's skip changes dimensions only where it downsamples.",
    decides="The residual blocks of ResNet-20, 56 and 18 with shortcuts of option A and B, counted: every skip that "
    "is not the identity belongs to a block that downsamples, and the reverse.",
    would_change="Bottleneck blocks, whose first stage widens without downsampling, and wide networks, whose first "
    "block does.",
    references=("He, Zhang, Ren and Sun 2016, Deep residual learning, sections 3.3 and 4.2, arXiv:1512.03385",),
)
def measure(settings: Settings) -> ClaimEvidence:
    """The blocks of each network, found by what is added to what in one forward pass, and what their skips do."""
    facts, rows, points = [], [], []
    for name, (spec, shape) in {**BASIC, **BOTTLENECK}.items():
        anatomy = measure_anatomy(load_model(spec, image_shape=shape, classes=10), image_shape=shape, name=name)
        changes = [block for block in anatomy.blocks if block.skip not in {"identity", "none"}]
        stray = [block.name for block in anatomy.blocks if (block in changes) != block.downsamples]
        facts.append(
            fact(
                f"exceptions in {name.replace(', ', ' with option ')}",
                "none",
                ", ".join(stray) or "none",
                not stray,
                decides=name in BASIC,
            )
        )
        how = " and ".join(sorted({block.skip for block in changes}))
        downsampling = sum(block.downsamples for block in anatomy.blocks)
        points.append(Point(series="blocks that downsample", x=name, y=downsampling))
        points.append(Point(series="skips that change dimensions", x=name, y=len(changes)))
        rows.append((name, len(anatomy.blocks), downsampling, len(changes), how, ", ".join(stray) or "none"))
    return ClaimEvidence(
        how=f"The anatomy of {len(rows)} residual networks, from one forward pass each: a block is an addition of two "
        "ways from one fork, its skip the way without the weights of the body.",
        facts=tuple(facts),
        charts=(
            Chart(
                finding="Skips change dimensions where blocks downsample, and in a ResNet-50 once more",
                **drawn("bars", x="network", y="residual blocks", x_scale="names"),
                points=tuple(points),
            ),
        ),
        tables=one_table(
            "Residual blocks and their skips",
            ("network", "blocks", "downsample", "skip changes dimensions", "by", "exceptions"),
            rows,
        ),
        notes=(
            "The sentence is true of blocks of two 3×3 convolutions, of which it is taught. It is not true of "
            "bottleneck blocks: the first stage of a ResNet-50 widens 64 channels to 256 at full resolution, so its "
            "first skip is a projection that downsamples nothing.",
            "Option A subsamples and pads with zero channels, without parameters; option B projects by a 1×1 "
            "convolution. Both change the dimensions in the same blocks.",
        ),
    )
