"""docs/architecture.md says which files to touch to add an attack, a format, a rule …: here one of each is added.

The additions go into a copy of the package, into no more files than promised, and are used there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent

import pytest

import assay
from assay.augment import prepare_kernels

SOURCE = Path(assay.__file__).parent
ROOT = SOURCE.parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PATH = re.compile(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+(?:\.py|/))`")


@dataclass(frozen=True)
class Addition:
    """New files (path → text) and lines put into existing ones (path, the text they follow, the lines)."""

    row: str  # of the table in the page
    new: dict[str, str] = field(default_factory=dict)
    lines: tuple[tuple[str, str, str], ...] = ()

    @property
    def touched(self) -> set[str]:
        return {*self.new, *(path for path, _, _ in self.lines)}


FUTURE = "from __future__ import annotations\n"
ADDITIONS = (
    Addition(
        "an attack",
        {
            "attacks/methods/three_steps.py": '''
from typing import ClassVar

from assay.attacks.methods.gradient import GradientMethod
from assay.attacks.options import AttackOptions, AttackPlan, Steps, register
from assay.attacks.threat import Threat


@register
class ThreeSteps(AttackOptions):
    """Three gradient steps."""

    name: ClassVar[str] = "three-steps"
    steps: Steps = 3

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        return AttackPlan((GradientMethod(name=self.name, steps=self.steps, seed=seed),))
'''
        },
        (("attacks/methods/__init__.py", '"external"', ', "three_steps"'),),
    ),
    Addition(
        "a data format",
        {
            "data/sources/text.py": """
import torch

from assay.data.dataset import ImageDataset


def load_text(files, *, name, split, reading, others):
    rows = [[int(word) for word in line.split()] for file in files for line in file.read_text().splitlines()]
    pixels = torch.tensor([row[1:] for row in rows], dtype=torch.uint8).reshape(len(rows), 1, 2, 2)
    return ImageDataset(pixels, torch.tensor([row[0] for row in rows]), classes=("dark", "light"), name=name)
"""
        },
        (
            (
                "data/sources/__init__.py",
                "FILE_FORMATS = (\n",
                '    FileFormat("text", "*.pixels", r"\\.pixels$", "text:load_text"),\n',
            ),
        ),
    ),
    Addition(
        "a data source (a spelling)",
        {
            "data/sources/noise.py": """
import torch

from assay.data.dataset import ImageDataset
from assay.runtime import generator


def load_noise(spec, *, reading):
    n = int(spec.partition(":")[2])
    images = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator(n))
    return ImageDataset(images, torch.arange(n) % 2, classes=("even", "odd"), name=spec)
"""
        },
        (
            (
                "data/sources/__init__.py",
                "\nSOURCES = (\n",
                '    Source("noise:N", lambda spec: spec.startswith("noise:"), "noise:load_noise"),\n',
            ),
        ),
    ),
    Addition(
        "a model source",
        {
            "models/sources/linear.py": """
from torch import nn

from assay.models.sources.blueprint import Blueprint


def plan_linear(spec, request):
    shape = request.image_shape or (1, 8, 8)
    return Blueprint(lambda classes: nn.Sequential(nn.Flatten(), nn.LazyLinear(classes)), shape)
"""
        },
        (
            (
                "models/sources/__init__.py",
                "\nSPELLINGS = (\n",
                '    Spelling("linear:", lambda spec: spec.startswith("linear:"), "linear:plan_linear"),\n',
            ),
        ),
    ),
    Addition(
        "a record",
        {
            "records/brightness.py": """
from typing import Literal

from assay.records.base import Record


class Brightness(Record):
    kind: Literal["brightness"] = "brightness"
    mean: float
"""
        },
        (
            ("records/checkup.py", FUTURE, "\nfrom assay.records.brightness import Brightness"),
            ("records/checkup.py", "    | TrainingRun | AppliedFix", " | Brightness"),
        ),
    ),
    Addition(
        "a stage of a check",
        {},
        (
            ("check/stages.py", FUTURE, "\nfrom assay.records.brightness import Brightness"),
            (
                "check/stages.py",
                "    yield measure_decay_groups(context.model)\n",
                """

def _brightness(context):
    yield Brightness(mean=float(context.clean.images.float().mean()))
""",
            ),
            (
                "check/stages.py",
                "\nSTAGES: tuple[CheckStage, ...] = (\n",
                """    CheckStage("brightness", _brightness),
""",
            ),
        ),
    ),
    Addition(
        "a rule",
        {},
        (
            ("verdict/accuracy.py", FUTURE, "\nfrom assay.records.brightness import Brightness"),
            (
                "verdict/accuracy.py",
                "\nRULES = (\n",
                """    Rule(
        id="A199",
        claim="Test images that are neither black nor white",
        fault="Black or white test images",
        threshold="a mean pixel between 10 and 245",
        needs=(Brightness,),
        judge=lambda evidence: RuleResult(
            "pass" if 10 < evidence.get(Brightness).mean < 245 else "error", "the mean", evidence.get(Brightness).mean
        ),
        why="Nothing can be seen.",
        fix="Look at the pictures.",
        command="assay check MODEL --data DATA",
        mend="pixels = pixels / pixels.max()",
        limits="A mean hides much.",
        examples=RuleExamples(passing=lambda: (Brightness(mean=100),), failing=lambda: (Brightness(mean=1),)),
        reference="",
    ),
""",
            ),
        ),
    ),
    Addition(
        "a chart, a section of a page",
        {
            "report/sections/brightness.py": """
import altair as alt

from assay.records.brightness import Brightness
from assay.report.charts import figure
from assay.report.parts import Facts, Section


def brightness_section(checkup):
    record = checkup.first(Brightness)
    if record is None:
        return None
    chart = alt.Chart(alt.InlineData(values=[{"mean": record.mean}])).mark_point().encode(x="mean:Q")
    drawn = figure(lambda width: chart.properties(width=width), finding="Neither black nor white")
    return Section("brightness", "How bright the images are", "The mean.", (drawn,), (record,))
"""
        },
        (
            (
                "report/sections/__init__.py",
                FUTURE,
                "\nfrom assay.report.sections.brightness import brightness_section",
            ),
            ("report/sections/__init__.py", "\nEVIDENCE: tuple[Maker, ...] = (\n", "    brightness_section,\n"),
        ),
    ),
    Addition(
        "a claim",
        {
            "claims/two_and_two.py": """
from assay.claims.claim import register_claim
from assay.records.claims import ClaimEvidence, ClaimFact


@register_claim(
    "two-and-two", "Two and two are four.", decides="Addition.", would_change="Nothing.", references=("Peano 1889",)
)
def measure(settings):
    return ClaimEvidence(
        how="added", facts=(ClaimFact(name="sum", expected="4", got=str(2 + 2), holds=2 + 2 == 4),)
    )
"""
        },
    ),
    Addition(
        "an image operation, a corruption",
        {},
        (
            (
                "augment/operations.py",
                '"blank a square of this side"),',
                '\n    ("FlipUp", "", 0.0, 0.0, None, "mirror top and bottom"),',
            ),
            (
                "augment/kernels/geometry.py",
                FUTURE,
                """
from assay.augment.kernels.points import kernel as _kernel


@_kernel
def flip_up(source, target):
    for channel in range(source.shape[0]):
        for row in range(source.shape[1]):
            target[channel, source.shape[1] - 1 - row] = source[channel, row]

""",
            ),
            ("augment/kernels/program.py", FUTURE, "\nfrom assay.augment.kernels.geometry import flip_up"),
            (
                "augment/kernels/program.py",
                "\nCOLOR, SHARPNESS, HUE = ",
                'CODES["Color"], CODES["Sharpness"], CODES["Hue"]\nFLIP_UP = CODES["FlipUp"]\n_ = ',
            ),
            (
                "augment/kernels/program.py",
                "    elif code == FLIP:\n        flip(source, target)\n",
                "    elif code == FLIP_UP:\n        flip_up(source, target)\n",
            ),
        ),
    ),
    Addition(
        "a recipe", {"training/recipes/short.toml": 'name = "short"\ndata = "digits"\nmodel = "mlp"\nepochs = 1\n'}
    ),
    Addition(
        "a verb",
        {
            "cli/greet.py": """
import typer


def greet() -> None:
    typer.echo("good morning")
"""
        },
        (
            ("cli/main.py", FUTURE, "\nfrom assay.cli.greet import greet"),
            ("cli/main.py", "(report, accept, explain", ", greet"),
        ),
    ),
)
PROGRAM = """
import sys
from pathlib import Path

import assay

assert "/copy/" in assay.__file__.replace(chr(92), "/")
data = assay.load_dataset("noise:24")
assert data.shape == (1, 8, 8) and len(data) == 24
Path("few.pixels").write_text("0 1 2 3 4\\n1 250 251 252 253\\n")
assert assay.load_dataset("few.pixels").images.flatten().tolist() == [1, 2, 3, 4, 250, 251, 252, 253]
model = assay.load_model("linear:", classes=2, image_shape=data.shape)

assert assay.list_attacks()["three-steps"].summary == "Three gradient steps."
assert assay.measure_robust_accuracy(model, data, attack="three-steps").record.steps == 3

checkup = assay.run_check(model, data, budget="quick", limit=4)
verdict = next(verdict for verdict in checkup.verdicts if verdict.rule == "A199")
assert verdict.status == "pass" and 100 < verdict.value < 155, verdict
again = assay.Checkup.model_validate_json(checkup.model_dump_json())
assert [record for record in again.records if record.kind == "brightness"][0].mean == verdict.value
assert "How bright the images are" in assay.render_page(checkup)

from assay.claims import CLAIMS, Settings

claim = next(claim for claim in CLAIMS if claim.id == "two-and-two")
assert claim.measure(Settings(budget="tiny")).facts[0].holds

assert assay.load_recipe("short").epochs == 1

from assay.cli.main import main

sys.argv = ["assay", "greet"]
main()
"""


# The other kernels are replaced by one that does nothing: compiling all of them anew would take a minute.
PROGRAM_OF_THE_OPERATION = """
import assay
from assay.augment import apply_operation
from assay.augment.kernels import program
from assay.augment.kernels.points import kernel

assert "/copy/" in assay.__file__.replace(chr(92), "/")


@kernel
def nothing(*arguments):
    pass


for name in ("warp", "change", "extend_table", "look_up", "shift", "color", "sharpness", "hue", "cutout", "flip"):
    assert hasattr(program, name)
    setattr(program, name, nothing)

data = assay.load_dataset("noise:24")
flipped = apply_operation(data.images, "FlipUp", 0.0)
assert (flipped == data.images.flip(2)).all()
print("flipped")
"""


def promised(row: str) -> str:
    """The cell of the page that says what to touch."""
    match = re.search(rf"^\| {re.escape(row)} \| (.+) \|$", PAGE, re.MULTILINE)
    assert match, f"docs/architecture.md has no row for {row}"
    return match[1]


@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.row)
def test_the_page_names_every_place_that_is_touched_and_they_are_at_most_three(addition: Addition) -> None:
    assert len(addition.touched) <= 3
    named = PATH.findall(promised(addition.row))
    for path in addition.touched:
        assert any(path == place or path.startswith(place) for place in named), f"{path} is not among {named}"


def add(additions: Sequence[Addition], copy: Path) -> None:
    for addition in additions:
        for path, text in addition.new.items():
            assert not (copy / path).exists()
            (copy / path).write_text(text.lstrip(), encoding="utf-8")
        for path, anchor, lines in addition.lines:
            text = (copy / path).read_text(encoding="utf-8")
            assert text.count(anchor) == 1, f"{path}: {anchor!r}"
            (copy / path).write_text(text.replace(anchor, anchor + lines), encoding="utf-8")


def run(text: str, *, copy: Path) -> str:
    """What a program prints that imports the copy; it must succeed."""
    program = copy.parents[1] / "program.py"
    program.write_text(f"def use():\n{indent(text, '    ')}\nif __name__ == '__main__':\n    use()\n")
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(copy.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, program.name]
    ended = subprocess.run(command, cwd=program.parent, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_one_of_each_can_be_added(tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "assay"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if cache := prepare_kernels().folder:  # holds for the copy too until an operation is added to it
        kept = copy / "augment" / "kernels" / "__pycache__"
        shutil.copytree(cache, kept, ignore=shutil.ignore_patterns("*.pyc"))
    operation = [addition for addition in ADDITIONS if addition.row.startswith("an image operation")]
    add([addition for addition in ADDITIONS if addition not in operation], copy)
    assert run(PROGRAM, copy=copy).endswith("good morning\n")
    add(operation, copy)
    assert run(PROGRAM_OF_THE_OPERATION, copy=copy) == "flipped\n"


def test_every_file_that_the_page_names_exists() -> None:
    shared = ""
    missing = []
    for line in PAGE.splitlines():
        for place in PATH.findall(line):
            shared = place.rpartition("/")[0] if "/" in place else shared
            if not (SOURCE / place).exists() and not (SOURCE / shared / place).exists() and not (ROOT / place).exists():
                missing.append(place)
    assert missing == []
