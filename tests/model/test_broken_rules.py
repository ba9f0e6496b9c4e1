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
    "delete before the run": Rules(data=broken.DeletesBeforeTheRun),
    "202 before the push": Rules(data=broken.answers_before_the_push),
    "no guard": Rules(logstore=broken.TakesResultsOfAnybody),
    "a release that keeps the token": Rules(queue=broken.queue(broken.KeepsTokensOfReleasedCalls)),
    "a lease that is not renewed, and its result stored anyway": Rules(
        runner=broken.RenewsNoLeases, logstore=broken.TakesResultsOfAnybody
    ),
    "a lease that is not renewed": Rules(runner=broken.RenewsNoLeases),
    "a final state that a retry overwrites": Rules(logstore=broken.ForgetsThatCallsHaveEnded),
    "attempts that are not counted": Rules(queue=broken.queue(broken.CountsNoAttempts)),
    "last in, first out": Rules(queue=broken.queue(broken.LastInFirstOut)),
    "keys that are forgotten": Rules(data=broken.forgets_keys),
}


@pytest.mark.parametrize("what", sorted(_RULES))
def test_the_model_finds_a_broken_rule(what: str) -> None:
    """Which violation comes first is chance; whole rules show none."""

    @seed(1)
    class Broken(CallLife):
        rules_of_nodes = _RULES[what]

    with pytest.raises(Violation):
        run_state_machine_as_test(Broken, settings=_few)
