"""Is there anything to test: trained weights, images not seen in training, labels in the order of the outputs?"""

from __future__ import annotations

from assay.intervals import share_bounds
from assay.records.accuracy import CleanAccuracy
from assay.records.provenance import Provenance
from assay.verdict import examples as ex
from assay.verdict.rule import SIDE, Rule, RuleExamples, RuleResult, name_some, near_chance, reads
from assay.wording import percent

MOSTLY = 0.5  # of the images of a class predicted as one other: then that is the class that its label means
FAR_BELOW = 0.5  # of the accuracy of guessing


def _same_order(clean: CleanAccuracy) -> RuleResult | None:
    sizes = [group.n for group in clean.per_class]
    present = sum(size > 0 for size in sizes)
    if present < 2 or len(clean.confusion) != len(sizes):
        return None
    moved = {}
    for true, (row, size) in enumerate(zip(clean.confusion, sizes, strict=True)):
        most = max(range(len(row)), key=row.__getitem__, default=true)
        if size and most != true and share_bounds(row[most], size, level=SIDE / present)[0] > MOSTLY:
            moved[true] = most
    targets = set(moved.values())
    permuted = len(targets) == len(moved) and (targets == set(moved) or len(moved) > present / 2)
    names = [group.name for group in clean.per_class]
    if len(moved) > 1 and permuted:
        counts = [row[moved.get(true, true)] for true, row in enumerate(clean.confusion)]
        short = f"{percent(sum(counts) / clean.n)} right where {len(moved)} labels are exchanged"
        pairs = [f"{names[true]} is called {names[most]}" for true, most in moved.items()]
        measured = f"{percent(clean.accuracy)}; {short}"
        return RuleResult("error", measured, clean.accuracy, where=name_some(pairs), short=short)
    guessing = 1 / present
    if share_bounds(clean.accuracy * clean.n, clean.n, level=SIDE)[1] < FAR_BELOW * guessing:
        measured = f"{percent(clean.accuracy)} (n = {clean.n:,}), far below guessing, {percent(guessing)}"
        return RuleResult("error", measured, clean.accuracy, short=measured)
    return near_chance(clean) or RuleResult("pass", f"{percent(clean.accuracy)} in this order", clean.accuracy)


def _trained(provenance: Provenance) -> RuleResult | None:
    if provenance.random == "unknown":
        return None
    drawn = provenance.random != "none"
    measured = f"{provenance.random} drawn at random" if drawn else "no weight is drawn at random"
    return RuleResult("error" if drawn else "pass", measured, float(drawn))


def _unseen(provenance: Provenance) -> RuleResult | None:
    seen = provenance.tested_on_training
    if seen is None:
        return None
    measured = f"trained on {provenance.trained_on}, " + ("the images of this check" if seen else "tested on others")
    return RuleResult("error" if seen else "pass", measured, float(seen))


RULES = (
    Rule(
        id="A106",
        claim="Labels in the order of the outputs",
        fault="Labels permuted",
        threshold="no two classes of which more than half of the images, at the lower end of the 95 % interval, are "
        "predicted as one another, and an accuracy that is not below half of that of guessing",
        **reads(CleanAccuracy, _same_order),
        why="Outputs read in another order than that of the labels make a good model look like a bad one.",
        fix="Give the names of the outputs, so that they are matched by name, or the classes in the order of training.",
        command="assay check MODEL --data DATA",
        mend="assay check MODEL --data DATA --classes names.txt --match-classes name",
        limits="A cycle of classes is named, or more than half of them moved to others; one class that is mostly taken "
        "for another is no permutation, and a model that mistakes two classes for one another looks like one.",
        examples=RuleExamples(
            passing=lambda: (ex.clean(900),), failing=lambda: (ex.clean(100, confusion=((50, 450), (450, 50))),)
        ),
        reference="Kuhn 1955, The Hungarian method for the assignment problem (matching of classes)",
    ),
    Rule(
        id="A107",
        claim="Trained weights",
        fault="Random weights",
        threshold="no weight that was neither trained nor loaded",
        **reads(Provenance, _trained),
        why="Nothing that is measured of random weights says anything about a trained model.",
        fix="Name the weights: --weights FILE, or a run folder.",
        command="assay check MODEL --data DATA",
        mend="assay check MODEL --data DATA --weights weights.safetensors",
        limits="Known of models that are opened by a name; of a module or of code of your own it is not.",
        examples=RuleExamples(
            passing=lambda: (Provenance(random="none"),), failing=lambda: (Provenance(random="all weights"),)
        ),
        reference="Adebayo et al. 2018, Sanity checks for saliency maps, arXiv:1810.03292",
        on_request=True,
    ),
    Rule(
        id="A108",
        claim="Tested on images that it was not trained on",
        fault="Tested on its training images",
        threshold="images of another split, or of other data, than those of the training",
        **reads(Provenance, _unseen),
        why="A network can know its training images by heart: accuracy on them says nothing about others.",
        fix="Test on held-out images: the split test, or a part that was held out in training.",
        command="assay check MODEL --data DATA",
        mend="assay check MODEL --data DATA --split test",
        limits="A run folder knows its data and its split by name; the same images under another name, "
        "near-duplicates, and the training of other models are not seen.",
        examples=RuleExamples(
            passing=lambda: (Provenance(random="none", trained_on="cifar10", tested_on_training=False),),
            failing=lambda: (Provenance(random="none", trained_on="cifar10", tested_on_training=True),),
        ),
        reference="Recht et al. 2019, Do ImageNet classifiers generalize to ImageNet?, arXiv:1902.10811",
        on_request=True,
    ),
)
