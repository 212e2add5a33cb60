"""Is the test set what its number rests on: leaks, duplicates, contradictory labels, pictures that show something?"""

from __future__ import annotations

from assay.records.quality import Duplicates, PictureSurvey, RelatedAccuracy
from assay.verdict import examples as ex
from assay.verdict.rule import Evidence, Rule, RuleExamples, RuleResult, largest, name_some, reads
from assay.wording import count, percent, plural

MANY = 0.01  # of the pictures: so many leaks or duplicates move an accuracy by as much as models differ
NEGLIGIBLE = 0.005  # of an accuracy
RARE = 10  # pictures of a class: with fewer its accuracy says nothing
BARZ = "Barz and Denzler 2020, Do we train on test data? Purging CIFAR of near-duplicates, arXiv:1902.00423"


def _no_leaks(evidence: Evidence) -> RuleResult | None:
    record = next((each for each in evidence.each(Duplicates) if each.against), None)
    return None if record is None or not record.n else _judge_duplicates(record, f"in {record.against}")


def _no_duplicates(evidence: Evidence) -> RuleResult | None:
    record = next((each for each in evidence.each(Duplicates) if not each.against), None)
    return None if record is None or not record.n else _judge_duplicates(record, "in the same set")


def _judge_duplicates(record: Duplicates, where: str) -> RuleResult:
    share = record.duplicates / record.n
    kinds = f"{count(record.exact)} exact, {count(record.near)} near; {count(record.similar)} more are similar"
    measured = f"{count(record.duplicates)} of {plural(record.n, 'picture')} ({percent(share)}) {where}: {kinds}"
    if not record.duplicates:
        return RuleResult("pass", measured, 0.0)
    named = name_some(f"{pair.first_name} = {pair.second_name}" for pair in record.pairs)
    short = f"{count(record.duplicates)} of {count(record.n)}"
    return RuleResult("error" if share > MANY else "warn", measured, share, where=named, short=short)


def _same_labels(evidence: Evidence) -> RuleResult | None:
    pairs = sum(record.contradictory for record in evidence.each(Duplicates))
    duplicates = sum(record.exact + record.near for record in evidence.each(Duplicates))
    if not duplicates or not any(record.n for record in evidence.each(Duplicates)):
        return None
    measured = f"{plural(pairs, 'pair')} of duplicates with different labels"
    if not pairs:
        return RuleResult("pass", measured, 0.0)
    named = name_some(
        f"{pair.first_name} ({pair.first_label}) = {pair.second_name} ({pair.second_label})"
        for record in evidence.each(Duplicates)
        for pair in record.pairs
        if pair.is_duplicate and pair.first_label != pair.second_label
    )
    return RuleResult("warn", measured, pairs, where=named, short=plural(pairs, "pair"))


def _without_leaks(evidence: Evidence) -> RuleResult | None:
    records = [each for each in evidence.each(RelatedAccuracy) if each.with_duplicate.n and each.without_duplicate.n]
    if not records:
        return None
    worst = largest(records, by=lambda record: record.low)
    share = worst.with_duplicate.n / worst.every.n
    change = share * worst.difference
    low, high = share * worst.low, share * worst.high
    after = f" after {worst.attack}" if worst.attack else ""
    measured = (
        f"{percent(worst.every.accuracy)}{after}, {percent(worst.without_duplicate.accuracy)} without the "
        f"{count(worst.with_duplicate.n)} pictures that have a duplicate in {worst.against} "
        f"({percent(worst.with_duplicate.accuracy)} on these)"
    )
    if worst.low > 0:
        short = f"{percent(worst.every.accuracy)} → {percent(worst.without_duplicate.accuracy)}"
        return RuleResult("warn", measured, change, short=short)
    return RuleResult("pass" if low >= -NEGLIGIBLE and high <= NEGLIGIBLE else "cannot tell", measured, change)


def _show_something(survey: PictureSurvey) -> RuleResult | None:
    bad = len(survey.unreadable)
    if survey.n == 0 or not survey.odd:
        return None
    share = (survey.n_odd + bad) / (survey.n + bad)
    kinds = [f"{count(each.n)} {each.oddity}" for each in survey.odd if each.n]
    kinds += [f"{count(bad)} unreadable"] if bad else []
    listed = f": {', '.join(kinds)}" if kinds else ""
    measured = f"{count(survey.n_odd + bad)} of {plural(survey.n + bad, 'picture')}{listed}"
    if share <= MANY and not bad:
        return RuleResult("pass", measured, share)
    named = name_some([*survey.unreadable, *(name for each in survey.odd for name in each.examples)])
    return RuleResult("warn", measured, share, where=named, short=listed.removeprefix(": "))


def _every_class(survey: PictureSurvey) -> RuleResult | None:
    if survey.n == 0 or not survey.classes:
        return None
    rarest = min(each.n for each in survey.classes)
    most = max(each.n for each in survey.classes)
    rare = [each.name for each in survey.classes if each.n < RARE]
    measured = f"{count(rarest)} to {plural(most, 'picture')} in each of {count(len(survey.classes))} classes"
    if not rare:
        return RuleResult("pass", measured, rarest)
    return RuleResult(
        "warn", measured, rarest, where=name_some(rare), short=f"{count(len(rare))} of {count(len(survey.classes))}"
    )


RULES = (
    Rule(
        id="A701",
        claim="No test picture is in the training set",
        fault="Leaks from the training set",
        threshold=f"no exact or near duplicate in the training images; an error beyond {percent(MANY, digits=0)}",
        needs=(Duplicates,),
        judge=_no_leaks,
        why="A network can know by heart what it was trained on: accuracy on such pictures says nothing about others.",
        fix="Leave these pictures out of the test set, or out of training: the cleaned manifest lists those that stay.",
        command="assay data DATA --against TRAIN",
        mend="assay data DATA --against TRAIN --write-manifest clean.csv",
        limits="Pictures turned or cut to less than about 0.7 of a side are not found; where all pictures of a "
        "set look alike, as digits do, only what stands out from that is one. A page shows the least certain pairs.",
        examples=RuleExamples(
            passing=lambda: (ex.duplicates(0, against="train"),), failing=lambda: (ex.duplicates(20, against="train"),)
        ),
        reference=BARZ,
        scored=False,
        on_request=True,
    ),
    Rule(
        id="A702",
        claim="No picture occurs twice in the set",
        fault="Duplicates in the set",
        threshold=f"no exact or near duplicate within the set; an error beyond {percent(MANY, digits=0)}",
        needs=(Duplicates,),
        judge=_no_duplicates,
        why="Pictures that occur twice count twice, and intervals that take them for independent are too narrow.",
        fix="Leave all but one of each group out.",
        command="assay data DATA",
        mend="assay data DATA --write-manifest clean.csv",
        limits="As for A701.",
        examples=RuleExamples(passing=lambda: (ex.duplicates(0),), failing=lambda: (ex.duplicates(20),)),
        reference=BARZ,
        scored=False,
        on_request=True,
    ),
    Rule(
        id="A703",
        claim="Duplicates have the same label",
        fault="Contradictory labels on duplicates",
        threshold="no pair of exact or near duplicates with different labels",
        needs=(Duplicates,),
        judge=_same_labels,
        why="One of the two labels is wrong, or the classes overlap; no model can be right about both.",
        fix="Look at the pairs on the page, and correct the labels or join the classes.",
        command="assay data DATA",
        mend="assay data DATA --write-manifest clean.csv",
        limits="Labels are compared by the names of their classes.",
        examples=RuleExamples(
            passing=lambda: (ex.duplicates(20),), failing=lambda: (ex.duplicates(20, contradictory=1),)
        ),
        reference="Northcutt et al. 2021, Pervasive label errors in test sets, arXiv:2103.14749",
        scored=False,
        on_request=True,
    ),
    Rule(
        id="A704",
        claim="The accuracy stays without the leaks",
        fault="Accuracy raised by leaks",
        threshold="pictures with a duplicate in the training images are no more often right than the others, beyond "
        f"noise; it holds where leaks change the accuracy by at most {percent(NEGLIGIBLE)}",
        needs=(RelatedAccuracy,),
        judge=_without_leaks,
        why="Only the accuracy on the other pictures tells what to expect of pictures that are new.",
        fix="Report the accuracy without the leaks.",
        command="assay check MODEL --data DATA --against TRAIN",
        mend="assay check MODEL --data clean.csv",
        limits="Pictures that occur twice can also be the easier ones: then the difference is no knowledge by heart.",
        examples=RuleExamples(passing=lambda: (ex.related(18, 20),), failing=lambda: (ex.related(100, 100),)),
        reference=f"{BARZ}; Newcombe 1998 for the interval",
        scored=False,
        on_request=True,
    ),
    Rule(
        id="A705",
        claim="The pictures show something",
        fault="Odd or unreadable pictures",
        threshold=f"every picture can be read, and at most {percent(MANY, digits=0)} are dark, bright, blurred or "
        "nearly empty",
        **reads(PictureSurvey, _show_something),
        why="What shows nothing cannot be classified: such pictures measure luck.",
        fix="Look at those that are named, and leave them out or read them again.",
        command="assay data DATA",
        mend="assay data DATA --write-manifest clean.csv",
        limits="Drawings on black or white, such as digits, can be dark or bright rightly.",
        examples=RuleExamples(passing=lambda: (ex.survey(0),), failing=lambda: (ex.survey(30),)),
        reference="Pertuz et al. 2013, Analysis of focus measure operators for shape-from-focus",
        scored=False,
        on_request=True,
    ),
    Rule(
        id="A706",
        claim="Every class has pictures enough",
        fault="Classes with hardly any pictures",
        threshold=f"at least {RARE} pictures of each class",
        **reads(PictureSurvey, _every_class),
        why="The accuracy of a class with fewer pictures has an interval so wide that it says nothing.",
        fix="Collect more pictures of these classes, or leave them out of what is told by class.",
        command="assay data DATA",
        mend="assay data DATA --split test",
        limits="It counts the pictures that were read: --limit leaves some out.",
        examples=RuleExamples(passing=lambda: (ex.survey(0),), failing=lambda: (ex.survey(0, rarest=2),)),
        reference="Wilson 1927, Probable inference, the law of succession, and statistical inference",
        scored=False,
        on_request=True,
    ),
)
