"""Numbers and names as a reader wants them: one spelling in every output."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol


class Proportion(Protocol):
    """A share ``accuracy`` of ``n`` with its 95 % interval from ``low`` to ``high``, as the records hold it."""

    @property
    def n(self) -> int: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def accuracy(self) -> float: ...


class Perturbation(Protocol):
    """A norm and an ε, as the records of attacks hold them: pixel units of [0, 1], a number of pixels for ``l0``."""

    @property
    def norm(self) -> str: ...
    @property
    def epsilon(self) -> float: ...


class Strength(Protocol):
    """The magnitudes of the two directions of one strength, as the records of image operations hold them."""

    @property
    def magnitude_low(self) -> float: ...
    @property
    def magnitude_high(self) -> float: ...


# Of each status of a verdict: the word for it, and the verb for one rule and for several.
STATUSES = {
    "error": ("fails", "fails", "fail"),
    "warn": ("warns", "warns", "warn"),
    "pass": ("holds", "holds", "hold"),
    "cannot tell": ("cannot tell", "cannot tell", "cannot tell"),
    "could not run": ("could not run", "could not run", "could not run"),
    "not run": ("not run", "did not run", "did not run"),
}
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
INVISIBLE = 8 / 255 + 1e-9  # the largest L∞ change of a photograph that is usually called so
_GAP = "\u00a0"  # a number stays on one line with its unit
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SYNSET = re.compile(r"^n\d{8}[\s_:,-]+(?=\w)")
_JOINERS = "\u200c\u200d"  # needed to write Persian, Hindi and many emoji; they reorder nothing


def inert(text: str, *, keep: str = "\n\t") -> str:
    """Spell out every character that could hide, reorder or erase its neighbours.

    Control characters, bidirectional overrides, zero-width marks and lone surrogates become ``⟨U+202E⟩``; characters
    of ``keep`` and the two joiners stay.

    >>> inert("cat\\x1b[2J")
    'cat⟨U+001B⟩[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep
        or character in _JOINERS
        or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else f"⟨U+{ord(character):04X}⟩"
        for character in text
    )


def clip(text: str, length: int) -> str:
    """At most ``length`` characters, the last an ellipsis where something was left out."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def distinct(names: Sequence[str], *, length: int = 28) -> list[str]:
    """Names that fit an axis and differ: inert, clipped, and numbered where two would look alike.

    >>> distinct(["cat", "cat", ""])
    ['cat', 'cat (1)', '(2)']
    """
    shown: list[str] = []
    taken: set[str] = set()
    for index, name in enumerate(names):
        label = clip(inert(name, keep="").strip(), length)
        shown.append(label if label and label not in taken else f"{label} ({index})".strip())
        taken.add(shown[-1])
    return shown


def class_names(names: Sequence[str], *, length: int = 28) -> list[str]:
    """Names of classes as :func:`distinct` gives them, of several terms the first, and without the id of a synset.

    What is left of two names must differ, else they stay as they are.

    >>> class_names(["n01440764 tench, Tinca tinca", "crane, bird", "crane, machine"])
    ['tench', 'crane, bird', 'crane, machine']
    """
    shown = list(names)
    for shorten in (_without_synset, _first_term):
        shorter = [shorten(name) for name in shown]
        times = Counter(shorter)
        shown = [short if times[short] == 1 else name for short, name in zip(shorter, shown, strict=True)]
    return distinct(shown, length=length)


def name_classes(names: Iterable[str], *, length: int = 28) -> dict[str, str]:
    """How :func:`class_names` shows each of some names, which may occur several times."""
    once = list(dict.fromkeys(names))
    return dict(zip(once, class_names(once, length=length), strict=True))


def _without_synset(name: str) -> str:
    """``tench`` of ``n01440764-tench``, as folders of ImageNet are called."""
    return _SYNSET.sub("", name)


def _first_term(name: str) -> str:
    return name.split(", ", maxsplit=1)[0].strip() or name


def percent(share: float, *, digits: int = 1) -> str:
    """A share as a percentage; only exactly 0 and 1 are shown as 0 and 100.

    >>> percent(0.9173), percent(0.99999), percent(1.0)
    ('91.7\\xa0%', '>\\xa099.9\\xa0%', '100\\xa0%')
    """
    if not math.isfinite(share):
        return "not finite"
    if share in {0.0, 1.0}:
        return f"{share * 100:.0f}{_GAP}%"
    step = 10.0**-digits
    if 0 < share < 1 and round(share * 100, digits) >= 100:
        return f">{_GAP}{100 - step:.{digits}f}{_GAP}%"
    if 0 < share < 1 and round(share * 100, digits) <= 0:
        return f"<{_GAP}{step:.{digits}f}{_GAP}%"
    return f"{share * 100:.{digits}f}{_GAP}%"


def interval(proportion: Proportion) -> str:
    """The 95 % interval in per cent and the sample size: ``91.2–92.2, n = 1,000``."""
    low, high = (f"{bound * 100:.1f}" for bound in (proportion.low, proportion.high))
    return f"{low}–{high}, n{_GAP}={_GAP}{count(proportion.n)}"


def accuracy(proportion: Proportion) -> str:
    """A proportion with all that is known of it: ``91.7 % (91.2–92.2, n = 1,000)``."""
    return f"{percent(proportion.accuracy)} ({interval(proportion)})"


def count(number: int) -> str:
    """A whole number with thousands separated: ``272,474``."""
    return f"{number:,}"


def compact(amount: float) -> str:
    """A large number in three digits and a prefix: ``81.6 M``."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(amount) >= size * 0.9995:
            scaled = amount / size
            return f"{scaled:.{max(0, 3 - len(str(int(abs(scaled)))))}f}{_GAP}{prefix}"
    return f"{amount:.3g}"


def points(share: float, *, digits: int = 2) -> str:
    """A difference of shares in percentage points: ``+1.25``, ``−0.40``, ``±0.00``."""
    if not math.isfinite(share):
        return number(share)
    text = f"{abs(share) * 100:.{digits}f}"
    return ("±" if float(text) == 0 else "+" if share > 0 else "−") + text


def number(value: float | None) -> str:
    """Three significant digits; powers of ten outside 0.001 to 100,000; ``∞`` and ``–`` for what is no number."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}{_GAP}×{_GAP}10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def status(name: str) -> str:
    """The word for the status of a verdict.

    >>> status("pass"), status("error"), status("cannot tell")
    ('holds', 'fails', 'cannot tell')
    """
    return STATUSES[name][0]


def count_rules(amount: int, status: str) -> str:
    """How many rules have a status, as a part of a sentence.

    >>> count_rules(1, "error"), count_rules(3, "pass"), count_rules(2, "not run")
    ('1 fails', '3 hold', '2 did not run')
    """
    return f"{amount} {STATUSES[status][1 if amount == 1 else 2]}"


def attack(name: str) -> str:
    """The name of an attack as it is written: abbreviations in capitals, other names as they are.

    >>> attack("pgd"), attack("apgd-ce"), attack("square")
    ('PGD', 'APGD-CE', 'square')
    """
    return name.upper() if name.partition("-")[0] in {"fgsm", "pgd", "apgd", "fab"} else name


def norm(name: str) -> str:
    """A norm as it is written: ``L∞`` for ``linf``.

    >>> norm("linf"), norm("l2"), norm("l0")
    ('L∞', 'L2', 'L0')
    """
    return NORMS.get(name, name)


def epsilon(value: float, norm: str) -> str:
    """A chosen ε: 255ths for L∞ unless it is a short decimal, a count of pixels for L0, else a number.

    >>> epsilon(8 / 255, "linf"), epsilon(0.3, "linf"), epsilon(0.5, "l2"), epsilon(12, "l1"), epsilon(25, "l0")
    ('8/255', '0.3', '0.5', '12', '25 pixels')
    """
    if norm == "l0" and float(value).is_integer():
        return plural(int(value), "pixel")
    levels = value * 255
    short = abs(value - round(value, 2)) < 1e-9
    if norm == "linf" and not short and 0 < levels <= 255 and abs(levels - round(levels, 2)) < 1e-4:
        return f"{round(levels, 2):g}/255"
    return number(value)


def distance(value: float, norm: str) -> str:
    """A measured distance or ε: always 255ths for L∞, else as :func:`epsilon`.

    >>> distance(0.0312, "linf"), distance(0.4567, "l2")
    ('7.96/255', '0.457')
    """
    return f"{value * 255:.3g}/255" if norm == "linf" and math.isfinite(value) else epsilon(value, norm)


def epsilon_option(value: float, norm: str) -> str:
    """An ε as a command line takes it: the text reads back as exactly ``value``.

    >>> epsilon_option(25.5 / 255, "linf"), epsilon_option(0.5, "l2")
    ('25.5/255', '0.5')
    """
    levels = f"{round(value * 255, 2):g}"
    return f"{levels}/255" if norm == "linf" and float(levels) / 255 == value else repr(value)


def ball(perturbation: Perturbation) -> str:
    """Norm and ε of an attack's record: ``L∞ 8/255``."""
    return f"{norm(perturbation.norm)} {epsilon(perturbation.epsilon, perturbation.norm)}"


def magnitude(strength: Strength, unit: str) -> str:
    """The two directions of one strength of an image operation, such as ``±30 °``; empty where it has no unit."""
    if not unit:
        return ""
    ends = sorted({strength.magnitude_low, strength.magnitude_high})
    if len(ends) == 2 and ends[0] == -ends[1]:
        return f"±{ends[1]:g} {unit}"
    return f"{' or '.join(f'{end:g}' for end in ends)} {unit}"


def visibility(perturbation: Perturbation) -> str:
    """What an L∞ ε means: its share of a pixel's range, and whether such a change is seen; empty for other norms."""
    if perturbation.norm != "linf":
        return ""
    size = perturbation.epsilon
    seen = "invisible" if size <= INVISIBLE else "hardly visible" if size <= 2 * INVISIBLE else "visible"
    return f"{epsilon(size, 'linf')}: {100 * size:.2g}{_GAP}% of a pixel's range, {seen}"


def seconds(duration: float) -> str:
    """``340 ms``, ``2.3 s``, ``1 min 12 s``, ``2 h 05 min``."""
    if not math.isfinite(duration):
        return number(duration)
    if duration < 1:
        return f"{duration * 1000:.0f}{_GAP}ms"
    if duration < 59.95:
        return f"{duration:.1f}{_GAP}s"
    rounded = round(duration)
    if rounded < 3600:
        return f"{rounded // 60}{_GAP}min {rounded % 60:02d}{_GAP}s"
    return f"{rounded // 3600}{_GAP}h {rounded % 3600 // 60:02d}{_GAP}min"


def duration(length: float) -> str:
    """A length of time in seconds as the options take it.

    >>> duration(45), duration(300), duration(5400)
    ('45s', '5m', '1h30m')
    """
    minutes, rest = divmod(length, 60)
    parts = ((int(minutes // 60), "h"), (int(minutes % 60), "m"), (rest, "s"))
    return "".join(f"{amount:g}{unit}" for amount, unit in parts if amount) or "0s"


def picture_type(encoded: str) -> str:
    """``png``, ``jpeg`` or ``webp``: the format of a picture file in base64, by its first bytes."""
    starts = {"/9j/": "jpeg", "UklGR": "webp"}
    return next((kind for start, kind in starts.items() if encoded.startswith(start)), "png")


def picture_url(encoded: str) -> str:
    """A picture file in base64 as the URL of an image on a page."""
    return f"data:image/{picture_type(encoded)};base64,{encoded}"


def plural(amount: int, noun: str) -> str:
    """``1 rule``, ``2 rules``."""
    return f"{count(amount)} {noun}" + ("" if amount == 1 else "s")


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1] if words else "") if part)


def kind_title(kind: str) -> str:
    """The name of a record kind as words: ``clean_accuracy`` becomes ``Clean accuracy``."""
    return kind.replace("_", " ").capitalize()
