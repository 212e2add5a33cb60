"""The rules on invariance: thresholds, benefit of the doubt, and nothing to judge."""

import pytest

from assay.records.accuracy import Proportion
from assay.records.augmentation import Invariance, OperationAccuracy, OperationPoint
from assay.verdict import find_rule
from assay.verdict.rule import Evidence


def make(first, others, *, n=1000, clean=900, gained=0):
    """Accuracy counts of the first operation at level 1 and of everything else."""

    def operation(name, counts):
        points = tuple(
            OperationPoint.of(
                c,
                n,
                level=i + 1,
                magnitude_low=-1.0 * i,
                magnitude_high=1.0 * i,
                lost=clean - c + gained,
                gained=gained,
            )
            for i, c in enumerate(counts)
        )
        mean = sum(p.accuracy for p in points) / len(points)
        return OperationAccuracy(operation=name, unit="°", points=points, mean_accuracy=mean)

    operations = (operation("Rotate", [first, *others]), operation("ShearX", [clean, *others]))
    means = [each.mean_accuracy for each in operations]
    return Invariance(
        clean=Proportion.of(clean, n),
        operations=operations,
        mean_accuracy=sum(means) / 2,
        worst_operation="Rotate",
        worst_accuracy=means[0],
        seed=0,
        seconds=1.0,
    )


def status(rule, record):
    return find_rule(rule).verdict(Evidence([record])).status


@pytest.mark.parametrize(("first", "expected"), [(900, "pass"), (865, "pass"), (850, "warn"), (760, "error")])
def test_an_unnoticeable_change_may_cost_three_points_beyond_noise(first, expected):
    assert status("A301", make(first, [900] * 4)) == expected


def test_few_samples_get_the_benefit_of_the_doubt():
    assert status("A301", make(86, [90] * 4, n=100, clean=90)) == "pass"
    assert status("A301", make(8600, [9000] * 4, n=10_000, clean=9000)) == "warn"


def test_what_is_gained_widens_the_doubt():
    assert status("A301", make(850, [900] * 4)) == "warn"
    assert status("A301", make(850, [900] * 4, gained=100)) == "pass"


@pytest.mark.parametrize(("others", "expected"), [(800, "pass"), (600, "warn"), (300, "error")])
def test_the_average_keeps_three_quarters(others, expected):
    assert status("A302", make(900, [others] * 4)) == expected


@pytest.mark.parametrize(("others", "expected"), [(700, "pass"), (400, "warn"), (50, "error")])
def test_the_worst_operation_keeps_sixty_per_cent(others, expected):
    verdict = find_rule("A303").verdict(Evidence([make(900, [others] * 4)]))
    assert (verdict.status, verdict.where) == (expected, "Rotate")


def test_a_model_that_is_never_right_is_not_judged():
    record = make(0, [0] * 4, clean=0)
    assert {status(rule, record) for rule in ("A301", "A302", "A303")} == {"not run"}
    assert find_rule("A301").verdict(Evidence([])).status == "not run"


def test_the_record_survives_a_trip_through_json():
    record = make(850, [700] * 4)
    assert Invariance.model_validate_json(record.model_dump_json()) == record
