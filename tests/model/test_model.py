"""The guarantee holds in every schedule that hypothesis finds.

A failure prints the least schedule that it has found, and a line ``@reproduce_failure(...)`` to put above
the test, with which that schedule alone is played again; ``pytest --hypothesis-seed=N`` plays all schedules
of one seed. FN_MODEL_EXAMPLES is the number of schedules on the queue
in memory, and a quarter of it on each of the others: 300 take half a minute, 30000 an hour.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import CallLife
from tests.model.queues import QUEUES
from tests.model.world import Rules

EXAMPLES = int(os.environ.get("FN_MODEL_EXAMPLES", "300"))


@pytest.mark.parametrize("queue", sorted(QUEUES))
def test_no_accepted_call_is_lost_in_any_schedule(queue: str) -> None:
    class OnThatQueue(CallLife):
        rules_of_nodes = Rules(queue=QUEUES[queue])

    run_state_machine_as_test(
        OnThatQueue,
        settings=settings(
            max_examples=EXAMPLES if queue == "memory" else EXAMPLES // 4,
            stateful_step_count=50,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
