"""What the model is made of."""

from __future__ import annotations

from collections import Counter

from assay.records.anatomy import Anatomy
from assay.records.checkup import Checkup
from assay.report.parts import NAME, NUMBER, Column, Facts, Section, Table
from assay.report.wording import compact, count, listed, plural


def anatomy_section(checkup: Checkup) -> Section | None:
    """Totals, residual blocks, and the table of layers."""
    anatomy = checkup.first(Anatomy)
    if anatomy is None:
        return None
    facts = [
        ("parameters", f"{count(anatomy.parameters)} ({count(anatomy.trainable_parameters)} trainable)"),
        ("numbers in buffers", count(anatomy.buffers)),
        ("floating-point operations, one image", compact(anatomy.flops)),
        ("depth", plural(anatomy.depth, "weight layer")),
        ("input", " × ".join(map(str, anatomy.input_shape))),
        ("normalises its input itself", "yes" if anatomy.normalizes_input else "no"),
    ]
    if anatomy.blocks:
        shapes = Counter(f"{block.shape}, {block.norm_placement}" for block in anatomy.blocks)
        skips = Counter(block.skip for block in anatomy.blocks)
        facts += [
            ("residual blocks", listed([f"{n} {shape}" for shape, n in shapes.items()])),
            ("skips", listed([f"{n} {skip}" for skip, n in skips.items()])),
        ]
    table = Table(
        f"Layers in forward order ({count(len(anatomy.layers))})",
        (
            Column("layer", NAME),
            Column("type"),
            Column("output", NUMBER),
            Column("parameters", NUMBER),
            Column("operations", NUMBER),
            Column("detail"),
        ),
        tuple(
            (
                layer.name + (f" (runs {layer.calls} times)" if layer.calls > 1 else ""),
                layer.type,
                " × ".join(map(str, layer.output_shape)),
                count(layer.parameters),
                compact(layer.flops),
                layer.detail,
            )
            for layer in anatomy.layers
        ),
        folded=True,
    )
    summary = "One multiplication and one addition count as two operations."
    return Section("anatomy", "Anatomy", summary, (Facts(tuple(facts)), table), records=(anatomy,))
