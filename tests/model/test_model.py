"""The guarantee holds in every schedule that hypothesis finds."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import CallLife


def test_no_accepted_call_is_lost_in_any_schedule() -> None:
    run_state_machine_as_test(
        CallLife,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
