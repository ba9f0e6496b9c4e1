from __future__ import annotations

import logging

import pytest

from runner_node.failures import MOST, SPAN, Failures
from shared_models.call import Call, Reason


def failed(number: int, reason: str = Reason.FUNCTION) -> Call:
    return Call(id=f"call-{number}", app_id="a", fn_id="f", error="it said no", reason=reason, attempt=2)


def test_a_call_that_failed_has_a_line_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Failures(lambda: 0.0).tell(failed(1), "shop/f")
    (line,) = caplog.records
    assert line.getMessage() == "a call of shop/f failed: it said no"
    said = vars(line)
    assert (said["call_id"], said["reason"], said["attempt"], said["fn_id"]) == ("call-1", "function", 2, "f")
    assert line.levelno == logging.INFO


def test_it_is_a_warning_where_the_function_had_no_chance(caplog: pytest.LogCaptureFixture) -> None:
    Failures(lambda: 0.0).tell(failed(1, Reason.NOT_STARTED), "shop/f")
    assert caplog.records[0].levelno == logging.WARNING


def test_many_failures_are_a_few_lines_and_a_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    failures = Failures(lambda: now)
    for number in range(MOST + 30):
        failures.tell(failed(number), "shop/f")
    assert len(caplog.records) == MOST
    now = SPAN
    failures.tell(failed(0), "shop/f")
    assert "30 more calls failed" in caplog.records[MOST].getMessage()
    assert len(caplog.records) == MOST + 2
