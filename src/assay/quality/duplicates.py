"""Duplicates within a set and between two: equal pixels, and pictures that one shot explains."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from assay.arguments import checked
from assay.data.dataset import ImageDataset
from assay.data.pictures import thumbnail_base64
from assay.quality.candidates import Describer, find_candidates
from assay.quality.registration import compare, refine, register
from assay.quality.thumbnails import make_thumbnails
from assay.records.quality import DuplicateKind, DuplicatePair, Duplicates, Relation
from assay.runtime import generator
from assay.runtime.processes import ALONE, Processes

NEAR = 0.93  # the lowest score of a near duplicate, where the other pictures of a set look nothing alike
ALIKE = 2.5  # times the Fisher z that nine of ten random pairs stay below: a near duplicate where pictures look alike
RANDOM_PAIRS = 1_000
LEAST_RANDOM = 20  # pictures, below which random pairs could well be duplicates
SIMILAR = 0.2  # in Fisher z below a near duplicate
LEAST_HEIGHT = 0.7  # of a correlation at half size, below which pairs are not compared closely
PLAIN = 2.0  # standard deviation in grey levels, below which a picture shows nothing to compare
FALSE_PAIRS = 0.01  # expected of all comparisons, were pictures independent
STARTS = 75  # shifts and scales at which a comparison begins
AT_ONCE = 512  # pairs
MOST = 0.9999  # of a score whose Fisher z is taken
MOST_PAIRS = 5_000
SHOWN = 24
_ORDER: dict[DuplicateKind, int] = {"exact": 0, "near": 1, "similar": 2}


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Compared pairs, each (P,): places, whether the first is mirrored, and what registration gives."""

    first: Tensor
    second: Tensor
    mirrored: Tensor
    z: Tensor
    evidence: Tensor
    values: Tensor  # (P, 8): scales, shifts, contrast, offset, noise, overlap

    @classmethod
    def join(cls, parts: Sequence[_Pairs]) -> _Pairs:
        names = ("first", "second", "mirrored", "z", "evidence", "values")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def take(self, chosen: Tensor) -> _Pairs:
        return _Pairs(
            self.first[chosen], self.second[chosen], self.mirrored[chosen], self.z[chosen], self.evidence[chosen],
            self.values[chosen],
        )  # fmt: skip


@checked
def find_duplicates(
    dataset: ImageDataset,
    against: ImageDataset | None = None,
    *,
    processes: Processes = ALONE,
    shown: int = SHOWN,
) -> Duplicates:
    """Find pictures that occur twice, in a set or in two: equal, or one shot moved, scaled, mirrored, recompressed.

    Candidates are the exact nearest neighbours in histograms of gradients, upright and mirrored. Each is then laid over
    its candidate by least squares (shift and scale of both axes, brightness, contrast), and what counts is how well
    the details agree there.

    Args:
        dataset: the pictures that are looked up, of any size.
        against: pictures in which their duplicates are looked for, such as the training images; their size and their
            number of channels may differ. Without it duplicates within ``dataset`` are found.
        processes: those that share the work; all have to call this.
        shown: pairs that keep small copies of both pictures.

    Returns:
        The pairs, each with what relates the two, and how many pictures have a relative.

    Raises:
        OptionError: an argument of a wrong type.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=50)
        >>> twice = data.subset(data.labels.new_tensor([0, 1, 2, 1]).long()[:3])
        >>> assay.find_duplicates(twice, against=data).exact
        3

    Reference:
        Barz and Denzler 2020, Do we train on test data? Purging CIFAR of near-duplicates, arXiv:1902.00423 (the
        definitions of near-duplicate and very similar)
    """
    started = time.perf_counter()
    other = dataset if against is None else against
    equal, unique, unique_other = _match_equal(dataset, None if against is None else other)
    thumbnails = make_thumbnails(dataset.images)
    other_thumbnails = thumbnails if against is None else make_thumbnails(other.images)
    textured, textured_other = (_textured(each) for each in (thumbnails, other_thumbnails))
    first, second = unique[textured[unique]], unique_other[textured_other[unique_other]]
    scores = torch.zeros(len(dataset))
    pairs, threshold = _compare_alike(
        thumbnails, other_thumbnails, first, second, same=against is None, processes=processes, scores=scores
    )
    rows: list[_Row] = [(first, second, "exact", 1.0, Relation()) for first, second in equal]
    rows += _near_rows(pairs, threshold)
    for first_place, second_place in equal:
        scores[[first_place, second_place] if against is None else first_place] = 1.0
    rows.sort(key=lambda row: (_ORDER[row[2]], -row[3], row[0], row[1]))
    return _summarize(
        dataset, other, rows, within=against is None, threshold=threshold, plain=int((~textured).sum()), scores=scores,
        shown=shown, seconds=time.perf_counter() - started,
    )  # fmt: skip


_Row = tuple[int, int, DuplicateKind, float, Relation]


def _match_equal(dataset: ImageDataset, against: ImageDataset | None) -> tuple[list[tuple[int, int]], Tensor, Tensor]:
    """Pairs with equal pixels, each with the first of its kind, and the places of those that are left to compare."""
    own = list(_digests(dataset))
    firsts: dict[bytes, int] = {}
    if against is None:
        pairs = [(firsts[key], place) for place, key in enumerate(own) if firsts.setdefault(key, place) != place]
        left_places = torch.tensor(sorted(firsts.values()))
        return pairs, left_places, left_places
    for place, key in enumerate(_digests(against)):
        firsts.setdefault(key, place)
    pairs = [(place, firsts[key]) for place, key in enumerate(own) if key in firsts]
    left = [place for place, key in enumerate(own) if key not in firsts]
    return pairs, torch.tensor(left, dtype=torch.int64), torch.tensor(sorted(firsts.values()))


def _digests(dataset: ImageDataset) -> Iterator[bytes]:
    shape = str(dataset.shape).encode()
    for image in dataset.images:
        yield hashlib.blake2b(image.contiguous().numpy().data, digest_size=16, key=shape).digest()


def _textured(thumbnails: Tensor) -> Tensor:
    return torch.cat([part.float().flatten(1).std(dim=1) >= PLAIN for part in torch.split(thumbnails, AT_ONCE)])


def _compare_alike(
    thumbnails: Tensor,
    others: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    same: bool,
    processes: Processes,
    scores: Tensor,
) -> tuple[_Pairs | None, float]:
    """All candidates that registration did not rule out, and the score from which they are near duplicates.

    ``scores`` become the best of each picture.
    """
    if len(first) == 0 or len(second) < 1 + same:
        return None, NEAR
    pictures, targets = thumbnails[first], others[second]
    describer = Describer.fit(targets)
    size = -(-len(first) // processes.world)
    rows = range(min(len(first), processes.rank * size), min(len(first), (processes.rank + 1) * size))
    own = [
        _compare(pictures, targets, left[part], right[part], mirrored[part])
        for left, right, mirrored in find_candidates(pictures, targets, describer, same=same, rows=rows)
        for part in torch.split(torch.arange(len(left)), AT_ONCE)
    ]
    every = [each for parts in processes.gather(own) for each in parts]
    pairs = _Pairs.join(every)
    threshold = _find_threshold(targets)
    surprising = NormalDist().inv_cdf(1 - FALSE_PAIRS / max(2, len(pairs.z) * STARTS))
    certain = pairs.z * (pairs.evidence - 3).clamp(min=0).sqrt() >= surprising
    best = torch.where(certain, pairs.z.tanh(), 0.0).clamp(min=0)
    scores.scatter_reduce_(0, first[pairs.first], best, "amax")
    if same:
        scores.scatter_reduce_(0, second[pairs.second], best, "amax")
    pairs = pairs.take((pairs.z >= math.atanh(threshold) - SIMILAR) & certain)
    return (
        _Pairs(first[pairs.first], second[pairs.second], pairs.mirrored, pairs.z, pairs.evidence, pairs.values),
        threshold,
    )


def _compare(pictures: Tensor, targets: Tensor, left: Tensor, right: Tensor, mirrored: Tensor) -> _Pairs:
    first, second = pictures[left].float(), targets[right].float()
    first = torch.where(mirrored[:, None, None], first.flip(2), first)
    alignment, height = register(first, second)
    close = (height >= LEAST_HEIGHT).nonzero()[:, 0]
    alignment = refine(first[close], second[close], alignment.take(close))
    agreement = compare(first[close], second[close], alignment)
    measured = (agreement.contrast, agreement.offset, agreement.noise, agreement.overlap)
    values = torch.cat([alignment.scale, alignment.shift, torch.stack(measured, dim=1)], dim=1)
    z = torch.atanh(agreement.score.clamp(-MOST, MOST))
    return _Pairs(left[close], right[close], mirrored[close], z, agreement.evidence, values)


def _find_threshold(pictures: Tensor) -> float:
    """The score of a near duplicate, by how well random pairs of these thumbnails (N, 32, 32) agree once aligned."""
    n = len(pictures)
    if n < LEAST_RANDOM:
        return NEAR
    random = generator(0, n)
    first = torch.randint(n, (RANDOM_PAIRS,), generator=random)
    second = (first + 1 + torch.randint(n - 1, (RANDOM_PAIRS,), generator=random)) % n
    heights = []
    for part in torch.split(torch.arange(RANDOM_PAIRS), AT_ONCE):
        one, other = pictures[first[part]].float(), pictures[second[part]].float()
        alignment = refine(one, other, register(one, other)[0])
        heights.append(compare(one, other, alignment).score)
    usual = float(torch.cat(heights).quantile(0.9))
    return max(NEAR, math.tanh(ALIKE * math.atanh(min(max(usual, 0.0), MOST))))


def _near_rows(pairs: _Pairs | None, threshold: float) -> list[_Row]:
    """Each pair once, by its best comparison."""
    rows: dict[tuple[int, int], _Row] = {}
    if pairs is None:
        return []
    limit, side = math.atanh(threshold), 32
    columns = (pairs.first, pairs.second, pairs.mirrored, pairs.z, pairs.values)
    for first, second, mirrored, z, values in zip(*(each.tolist() for each in columns), strict=True):
        key = (min(first, second), max(first, second))
        match: DuplicateKind = "near" if z >= limit else "similar"
        relation = Relation(
            mirrored=mirrored,
            scale_down=values[0],
            scale_across=values[1],
            shift_down=values[2] / side,
            shift_across=values[3] / side,
            contrast=values[4],
            offset=values[5],
            noise=values[6],
            overlap=values[7],
        )
        row: _Row = (first, second, match, math.tanh(z), relation)
        if key not in rows or rows[key][3] < row[3]:
            rows[key] = row
    return list(rows.values())


def _summarize(
    dataset: ImageDataset,
    other: ImageDataset,
    rows: Sequence[_Row],
    *,
    within: bool,
    threshold: float,
    plain: int,
    scores: Tensor,
    shown: int,
    seconds: float,
) -> Duplicates:
    closest: dict[int, DuplicateKind] = {}
    for first, second, match, _, _ in rows:  # the closest come first
        closest.setdefault(first, match)
        if within:
            closest.setdefault(second, match)
    matches = list(closest.values())
    pairs = [_describe(dataset, other, row) for row in rows]
    chosen = _choose_shown(rows, shown)
    pairs = [_picture(pair, dataset, other) if place in chosen else pair for place, pair in enumerate(pairs)]
    return Duplicates(
        data=f"{dataset.name} ({dataset.split})",
        against="" if within else f"{other.name} ({other.split})",
        n=len(dataset),
        n_against=0 if within else len(other),
        exact=matches.count("exact"),
        near=matches.count("near"),
        similar=matches.count("similar"),
        threshold=threshold,
        plain=plain,
        contradictory=sum(pair.is_duplicate and pair.first_label != pair.second_label for pair in pairs),
        pairs=tuple(pairs[:MOST_PAIRS]),
        left_out=max(0, len(pairs) - MOST_PAIRS),
        related=tuple(sorted(place for place, match in closest.items() if match != "similar")),
        scores=tuple(round(score, 4) for score in scores.tolist()),
        seconds=seconds,
    )


def _choose_shown(rows: Sequence[_Row], shown: int) -> set[int]:
    """Places of pairs to show: of each kind the least alike of half as many, where there are more, and the first."""
    near = [place for place, row in enumerate(rows) if row[2] == "near"]
    exact = [place for place, row in enumerate(rows) if row[2] == "exact"]
    similar = [place for place, row in enumerate(rows) if row[2] == "similar"]
    share = max(1, shown // 4)
    spread = [near[round(i * (len(near) - 1) / max(1, shown // 2 - 1))] for i in range(shown // 2)] if near else []
    return set(exact[:share]) | set(spread) | set(similar[:share])


def _describe(dataset: ImageDataset, other: ImageDataset, row: _Row) -> DuplicatePair:
    first, second, match, score, relation = row
    return DuplicatePair(
        first=first,
        second=second,
        first_name=dataset.sample_name(first),
        second_name=other.sample_name(second),
        first_label=dataset.classes[int(dataset.labels[first])],
        second_label=other.classes[int(other.labels[second])],
        match=match,
        score=score,
        relation=relation,
    )


def _picture(pair: DuplicatePair, dataset: ImageDataset, other: ImageDataset) -> DuplicatePair:
    images = {"first_image": dataset.images[pair.first], "second_image": other.images[pair.second]}
    return pair.model_copy(update={name: thumbnail_base64(image) for name, image in images.items()})
