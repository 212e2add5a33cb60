"""What ``assay attack`` and ``assay look`` print: accuracies, losses per step, curves, checks of the attack."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from assay import wording
from assay.records.attack import AttackAnatomy, AttackSanity, EpsilonCurve, RobustAccuracy
from assay.records.finding import Verdict
from assay.report.summary import LOOKS
from assay.report.terminal.layout import STYLES, bar, print_line, print_notes, print_table
from assay.wording import plural


def print_attack(record: RobustAccuracy, console: Console, *, notes: Sequence[str] = ()) -> None:
    """The notes, the threat, the accuracy before and after, the cost, and the loss after each step."""
    print_notes(console, notes)
    norm, size = wording.norm(record.norm), wording.epsilon(record.epsilon, record.norm)
    limit = f"within {norm} {size}" if record.constrained else f"{norm} steps of {size}, no projection"
    if record.target is not None:
        limit += f", into {record.target}"
    title = Text.assemble((record.attack, "bold"), f"  {limit}, seed {record.seed}, n = {record.n:,}")
    print_line(console, title, wrap=False)
    clean = record.clean_correct / record.n
    robust = Text(f"{100 * record.accuracy:.2f} %", style="bold")
    interval = f"95\u00a0% interval {100 * record.low:.2f} to {100 * record.high:.2f}\u00a0%"
    rows: list[tuple[str, str | Text, str]] = [
        ("clean accuracy", f"{100 * clean:.2f} %", f"{record.clean_correct:,} of {record.n:,}"),
        ("robust accuracy", robust, f"{record.correct:,} of {record.n:,}, {interval}"),
    ]
    if record.correct_after_rounding is not None:
        rounded = record.correct_after_rounding / record.n
        rows.append(("rounded to 8 bits", f"{100 * rounded:.2f} %", "the same images as a file would store them"))
    distance = wording.distance(record.mean_distance, record.norm)
    cost = f"passes an image in {record.precision}, {record.seconds:.1f}\u00a0s"
    rows += [
        ("mean distance", distance, f"{norm}, of the images that broke"),
        ("cost", f"{record.forward_equivalents:.1f}", cost),
    ]
    print_table(console, ("", "", ""), rows, header=False)
    if record.outside_ball or record.unconfirmed:
        rejected = f"not counted: {record.outside_ball} outside the ball, {record.unconfirmed} not confirmed"
        print_line(console, rejected, "yellow")
    if len(record.loss_per_step) > 1:
        _print_steps(record, console)


def _print_steps(record: RobustAccuracy, console: Console, *, most: int = 12) -> None:
    count = len(record.loss_per_step)
    shown = sorted({round(k * (count - 1) / (min(most, count) - 1)) for k in range(min(most, count))})
    steps = ((k, record.loss_per_step[k], record.accuracy_per_step[k]) for k in shown)
    rows = ((str(k), f"{loss:.3f}", f"{100 * share:.1f} %", bar(share, "green")) for k, loss, share in steps)
    print_table(console, (">step", ">mean loss", ">accuracy", "(a full bar is 100 %)"), rows)


def print_attack_anatomy(anatomy: AttackAnatomy, console: Console, *, pairs: int = 5) -> None:
    """What the broken images turned into, and how visible the change is."""
    turned = ", ".join(f"{t.before} → {t.after} {t.count}" for t in anatomy.transitions[:pairs])
    rest = sum(t.count for t in anatomy.transitions[pairs:])
    print_line(console, f"turned into: {turned}" + (f", others {rest}" if rest else ""), wrap=False)
    if anatomy.median_psnr is not None and anatomy.median_ssim is not None:
        similarity = f"PSNR {anatomy.median_psnr:.1f} dB, SSIM {anatomy.median_ssim:.3f}"
        print_line(console, f"how visible: {similarity} (medians)", wrap=False)


def print_curve(curve: EpsilonCurve, console: Console) -> None:
    """Accuracy at each epsilon, and the epsilon that breaks half of the images."""
    print_line(console, f"accuracy against epsilon ({wording.norm(curve.norm)})", "italic")
    rows = (
        (wording.epsilon(point.epsilon, curve.norm), f"{100 * point.accuracy:.2f} %", bar(point.accuracy, "green"))
        for point in curve.points
    )
    print_table(console, (">epsilon", ">accuracy", ""), rows)
    if curve.median_epsilon is not None:
        median = wording.distance(curve.median_epsilon, curve.norm)
        print_line(console, f"half of the images are broken at {median} (median minimum distance)")


def print_sanity(sanity: AttackSanity, verdicts: Sequence[Verdict], console: Console) -> None:
    """Each check of the attack that fails, with its rule and its fix; one line when none does."""
    failing = [verdict for verdict in verdicts if verdict.status in {"warn", "error"}]
    held = sum(verdict.status == "pass" for verdict in verdicts)
    open_ones = [verdict.rule for verdict in verdicts if verdict.status == "cannot tell"]
    if not failing and held:
        checks = f"{plural(held, 'check')} of the attack itself {'finds' if held == 1 else 'find'}"
        passed = f"{checks} no gradient masking and no other fault (n = {sanity.n})"
        print_line(console, Text.assemble((LOOKS["pass"].sign, STYLES["pass"]), f" {passed}"), wrap=False)
    if open_ones:
        look = LOOKS["cannot tell"]
        line = f"{look.sign} {look.word}: {', '.join(open_ones)} (n = {sanity.n})"
        print_line(console, line, STYLES["cannot tell"], wrap=False)
    if not failing:
        return
    ran = len(failing) + held + len(open_ones)
    print_line(console, f"{len(failing)} of {ran} checks of the attack itself fail (n = {sanity.n}):", wrap=False)
    for verdict in failing:
        look = LOOKS[verdict.status]
        sign = (f"{look.sign} {look.word} ", STYLES[verdict.status])
        title = Text.assemble(sign, (f"{verdict.rule} ", "bold"), verdict.statement)
        print_line(console, title, wrap=False)
        print_line(console, f"      {verdict.measured}\n      {verdict.fix}", "dim", wrap=False)


SHOWN = 5


def print_prediction(title: str, probabilities: Sequence[tuple[str, float]], console: Console, *, note: str) -> None:
    """The likeliest classes of one picture."""
    print_line(console, title, "bold", wrap=False)
    largest = sorted(probabilities, key=lambda pair: -pair[1])[:SHOWN]
    rows = ((name, f"{100 * p:.2f} %", bar(p, "blue")) for name, p in largest)
    print_table(console, ("", ">", ""), rows, header=False)
    print_line(console, note, wrap=False)


def print_picture_attack(
    finding: str,
    console: Console,
    *,
    success: bool,
    norm: str,
    moved: float,
    survives_rounding: bool | None,
    losses: Sequence[float],
    notes: Sequence[str] = (),
) -> None:
    """The finding, the distance of the adversarial image or the best attempt, and the loss after each step."""
    print_line(console, finding, f"bold {'red' if success else 'green'}", wrap=False)
    print_notes(console, notes)
    size = f"{wording.norm(norm)} distance {wording.distance(moved, norm)}"
    if success:
        rounded = "still misclassified" if survives_rounding else "classified correctly again"
        print_line(console, f"{size}; as an 8-bit file {rounded}", wrap=False)
    elif moved:
        print_line(console, f"{size} of that attempt", wrap=False)
    if len(losses) > 1:
        last = len(losses) - 1
        steps = sorted({round(i * last / min(last, 10)) for i in range(min(last, 10) + 1)})
        print_table(console, (">step", ">loss"), ((str(step), f"{losses[step]:.4f}") for step in steps))
