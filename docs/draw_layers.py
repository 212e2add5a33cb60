"""Draw docs/images/layers.svg: the floors of pyproject.toml's import contract, with what each package is for.

python docs/draw_layers.py
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "layers.svg"
ROLES = {
    "cli": "one module a verb: parse, call, print, exit code",
    "fixes": "fixes, applied to a copy, measured again",
    "claims": "textbook statements and their experiments",
    "app": "the page on this machine",
    "check": "the stages of a check",
    "compression": "layers in factors",
    "tracing": "depth and time in one call",
    "views": "what app and terminal show",
    "testing": "assertions for tests",
    "training": "recipes, the one loop, runs",
    "attacks": "threats, methods, the engine",
    "diagnostics": "probes that look inside",
    "lowrank": "factorization, certificates, spectra",
    "quality": "duplicates, leaks, odd pictures",
    "evaluate": "the only evaluation loop",
    "augment": "image operations, policies, kernels",
    "models": "architectures, sources, weights",
    "data": "formats, sources, ImageDataset",
    "runtime": "seeds, devices, processes, interrupts, the resumable store",
    "report": "pages, charts, terminal, JUnit, SARIF",
    "verdict": "rules: records in, verdicts out",
    "comparison": "paired tests between checks",
    "intervals": "confidence intervals of proportions",
    "records": "what was measured, frozen; readers of it",
    "files": "atomic writes, folders, locks",
    "wording": "numbers, norms and epsilons in words",
    "options": "validated value objects",
    "arguments": "of public functions, checked",
    "errors": "one tree, with exit codes",
}
WIDTH, ROW, GAP, LEFT, TOP = 1080, 58, 8, 20, 64
STYLE = """
.paper{fill:#fbfaf7}.box{fill:#ffffff;stroke:#8a8478;stroke-width:1}.plain{fill:#eef3f1;stroke:#4c7a6b;stroke-width:1}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#23211d}
.name{font-size:16px;font-weight:600}.role{font-size:12px;fill:#56524a}.note{font-size:13px;fill:#56524a}
.title{font-size:17px;font-weight:600}.line{stroke:#8a8478;stroke-width:1.5;fill:none}.head{fill:#8a8478}
@media (prefers-color-scheme:dark){
.paper{fill:#1d1f1e}.box{fill:#272a29;stroke:#8d938f}.plain{fill:#1f302b;stroke:#6fae99}
text{fill:#eceae4}.role,.note{fill:#bdbab1}.line{stroke:#a6a197}.head{fill:#a6a197}}
"""


def floors() -> list[list[str]]:
    """The packages of each floor, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip().removeprefix("assay.") for name in layer.split("|")] for layer in layers]


def torch_free() -> set[str]:
    """The packages that may not import torch."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    sources = next(contract["source_modules"] for contract in contracts if contract["type"] == "forbidden")
    return {name.removeprefix("assay.") for name in sources}


def draw() -> str:
    """The picture as SVG."""
    rows, free = floors(), torch_free()
    height = TOP + len(rows) * (ROW + GAP) + 30
    inner = WIDTH - 2 * LEFT - 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t">',
        '<title id="t">The floors of assay: a package imports from lower floors only</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="10"/>',
        f'<text class="title" x="{LEFT}" y="30">A package imports from the floors below it, never from its own</text>',
        f'<text class="note" x="{LEFT}" y="50">Green: needs no torch. Records hold numbers, rules judge them, '
        "pages draw them.</text>",
    ]
    for level, names in enumerate(rows):
        y = TOP + level * (ROW + GAP)
        width = (inner - GAP * (len(names) - 1)) / len(names)
        for place, name in enumerate(names):
            x = LEFT + place * (width + GAP)
            kind = "plain" if name in free else "box"
            parts += [
                f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW}" rx="6"/>',
                f'<text class="name" x="{x + 12:.1f}" y="{y + 24}">{name}</text>',
                f'<text class="role" x="{x + 12:.1f}" y="{y + 44}">{escape(ROLES[name])}</text>',
            ]
    x, bottom = WIDTH - LEFT - 22, TOP + len(rows) * (ROW + GAP) - GAP
    parts += [
        f'<path class="line" d="M{x} {TOP} V{bottom - 10}"/>',
        f'<path class="head" d="M{x - 6} {bottom - 12} L{x} {bottom} L{x + 6} {bottom - 12} Z"/>',
        f'<text class="note" transform="translate({x + 10} {(TOP + bottom) // 2}) rotate(-90)" text-anchor="middle">'
        "imports</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
