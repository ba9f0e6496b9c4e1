"""The guarantee holds in every schedule that hypothesis finds.

They are the same with every run, 400 on the queue in memory and a quarter of that on each of the others.
FN_MODEL_EXAMPLES=30000 plays as many, others every time, which takes an hour.

A failure prints a schedule, the story of the call in it, and a line ``@reproduce_failure(...)`` to put above
the test, with which that schedule alone is played again; ``pytest --hypothesis-seed=N`` plays all schedules
of one seed. With FN_MODEL_EXAMPLES it is the least schedule that was found.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.api import Trouble
from tests.model.history import Outcome, without_numbers
from tests.model.machine import CallLife
from tests.model.network import Fate
from tests.model.queues import QUEUES
from tests.model.world import Rules

EXAMPLES = int(os.environ.get("FN_MODEL_EXAMPLES", "0"))
MEETS = {
    *(one.value for one in Fate),
    *(one.value for one in list(Trouble)[1:]),
    *(f"ended it as {one.value}" for one in Outcome),
    "accepted",
    "not accepted",
    "the run is stopped",
    "finds results in its spool",
    "cancelled",
    "redriven",
    "cleans up",
}
"""What must have happened in some schedule: a model in which little happens shows little."""


@pytest.mark.parametrize("queue", sorted(QUEUES))
def test_no_accepted_call_is_lost_in_any_schedule(queue: str) -> None:
    class OnThatQueue(CallLife):
        rules_of_nodes = Rules(queue=QUEUES[queue])
        kinds = set()

    examples = EXAMPLES or 400
    run_state_machine_as_test(
        OnThatQueue,
        settings=settings(
            max_examples=examples if queue == "memory" else examples // 4,
            stateful_step_count=50,
            deadline=None,
            derandomize=not EXAMPLES,
            # The story that a violation comes with says enough; shrinking takes minutes.
            phases=tuple(Phase) if EXAMPLES else (Phase.generate,),
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    if queue == "memory":
        assert OnThatQueue.kinds is not None
        missing = {
            one for one in MEETS if not any(without_numbers(one) in kind for kind in OnThatQueue.kinds)
        }
        assert missing == set()
