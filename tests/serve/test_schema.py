"""Requests made from the service's own description, by schemathesis (`pip install "seg-tune[fuzz]"`)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.test_fuzz import SECONDS, run


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_answers_are_as_described(port: int, mode: str) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    described = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]

    def check(case: Any) -> None:
        case.call_and_validate(checks=[not_a_server_error, *described], timeout=SECONDS)

    description = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    operations = [found.ok() for found in description.get_all_operations()]
    assert {"infer", "model"} <= {operation.definition.raw["operationId"] for operation in operations}
    for operation in operations:
        if mode == "NEGATIVE" and not operation.body:
            continue  # There is nothing to get wrong.
        run(check, operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]), 50, rounds=10)
