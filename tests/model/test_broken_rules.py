"""The model finds what it is meant to find: each broken rule is a violation within few schedules."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model import broken
from tests.model.history import Violation
from tests.model.machine import CallLife
from tests.model.world import Rules

_few = settings(
    max_examples=300,
    stateful_step_count=50,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    verbosity=Verbosity.quiet,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

_RULES = {
    "delete before the run": (Rules(data=broken.DeletesBeforeTheRun), "lost"),
    "202 before the push": (Rules(data=broken.answers_before_the_push), "lost"),
    "no guard": (Rules(logstore=broken.TakesResultsOfAnybody), "fencing|attempts|final state"),
    "a release that keeps the token": (
        Rules(queue=broken.queue(broken.KeepsTokensOfReleasedCalls)),
        "fencing|attempts",
    ),
    "a lease that is not renewed, and its result stored anyway": (
        Rules(runner=broken.RenewsNoLeases, logstore=broken.TakesResultsOfAnybody),
        "no fault touched|fencing",
    ),
    "a lease that is not renewed": (Rules(runner=broken.RenewsNoLeases), "no fault touched"),
    "a final state that a retry overwrites": (
        Rules(logstore=broken.ForgetsThatCallsHaveEnded),
        "final state|attempts|dead letters",
    ),
    "attempts that are not counted": (Rules(queue=broken.queue(broken.CountsNoAttempts)), "attempts|no end"),
    "last in, first out": (Rules(queue=broken.queue(broken.LastInFirstOut)), "order"),
    "keys that are forgotten": (Rules(data=broken.forgets_keys), "idempotency"),
}


@pytest.mark.parametrize("what", sorted(_RULES))
def test_the_model_finds_a_broken_rule(what: str) -> None:
    rules, finding = _RULES[what]

    @seed(1)
    class Broken(CallLife):
        rules_of_nodes = rules

    with pytest.raises(Violation, match=finding):
        run_state_machine_as_test(Broken, settings=_few)
