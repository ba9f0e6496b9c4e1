"""The guarantee holds in every schedule that hypothesis finds.

A failure prints the least schedule that it has found, and a line ``@reproduce_failure(...)`` to put above
the test, with which that schedule alone is played again; ``pytest --hypothesis-seed=N`` plays all schedules
of one seed. FN_MODEL_EXAMPLES is the number of schedules: 300 take half a minute, 30000 an hour.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import CallLife

EXAMPLES = int(os.environ.get("FN_MODEL_EXAMPLES", "300"))


def test_no_accepted_call_is_lost_in_any_schedule() -> None:
    run_state_machine_as_test(
        CallLife,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
