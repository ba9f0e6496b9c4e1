"""The life of queued calls as a state machine: hypothesis chooses what happens, and the checks look on."""

from __future__ import annotations

import logging
import sys
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.model import checks
from tests.model.api import Trouble
from tests.model.history import Outcome
from tests.model.network import Fate
from tests.model.world import APIS, FUNCTIONS, RUNNERS, Rules, World

_apis = st.integers(0, APIS - 1)
_runners = st.integers(0, RUNNERS - 1)
_outcomes = st.lists(st.sampled_from(Outcome), min_size=1, max_size=3).map(tuple)
_SHIFTS = (0.0, 150.0, -150.0, 3600.0)


class CallLife(RuleBasedStateMachine):
    """One schedule; a violation is raised in the step that shows it, or at the end."""

    rules_of_nodes: ClassVar[Rules] = Rules()
    traces: ClassVar[list[list[str]] | None] = None
    """Where to put what happened."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.ERROR)
        self.world = World(self.rules_of_nodes)

    # -- what is meant to happen ---------------------------------------------------------------

    @rule(
        fn=st.sampled_from(sorted(FUNCTIONS)),
        priority=st.integers(0, 2),
        delay=st.sampled_from((0, 0, 0, 20)),
        outcomes=st.one_of(st.just((Outcome.SUCCESS,)), _outcomes),
        duration=st.sampled_from((0.1, 1.0, 20.0, 100.0)),
        key=st.sampled_from(("", "", "one", "two")),
    )
    def submit(
        self, fn: str, priority: int, delay: int, outcomes: tuple[Outcome, ...], duration: float, key: str
    ) -> None:
        call = self.world.plan(
            fn, priority=priority, delay=delay, outcomes=outcomes, duration=duration, key=key
        )
        self.world.submit(call)

    @precondition(lambda self: self.world.history.plans)
    @rule(which=st.integers(0, 100))
    def submit_again(self, which: int) -> None:
        plans = list(self.world.history.plans.values())
        self.world.submit(plans[which % len(plans)].call)

    @rule(number=_runners, limit=st.integers(1, 4), wait=st.sampled_from((0.0, 0.0, 5.0)))
    def pull(self, number: int, limit: int, wait: float) -> None:
        self.world.pull(number, limit, wait)

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0, 12.0, 31.0, 70.0)))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(number=_apis)
    def clean(self, number: int) -> None:
        self.world.clean(number)

    # -- what is not ---------------------------------------------------------------------------

    @rule(fates=st.lists(st.sampled_from(Fate), min_size=1, max_size=4))
    def disturb_requests(self, fates: list[Fate]) -> None:
        self.world.network.fates.extend(fates)

    @rule(number=_apis, before=st.integers(0, 6), trouble=st.sampled_from(list(Trouble)[1:]))
    def disturb_stores(self, number: int, before: int, trouble: Trouble) -> None:
        self.world.apis[number].troubles.extend([Trouble.NONE] * before + [trouble])

    @rule(number=_apis)
    def restart_api(self, number: int) -> None:
        self.world.restart_api(number)

    @rule(number=_runners)
    def kill_or_start_runner(self, number: int) -> None:
        if self.world.runners[number]:
            self.world.kill_runner(number)
        else:
            self.world.start_runner(number)

    @rule(number=_runners)
    def cut_or_join_runner(self, number: int) -> None:
        self.world.network.cut ^= {f"runner{number}"}

    @rule(number=_runners, deaf=st.booleans())
    def deafen(self, number: int, deaf: bool) -> None:
        if runner := self.world.runners[number]:
            runner.deaf = deaf

    @rule(number=_runners, seconds=st.sampled_from(_SHIFTS))
    def set_runner_clock(self, number: int, seconds: float) -> None:
        self.world.runner_clocks[number] = seconds

    @rule(number=_apis, seconds=st.sampled_from(_SHIFTS))
    def set_api_clock(self, number: int, seconds: float) -> None:
        self.world.apis[number].ahead = seconds

    @precondition(lambda self: self.world.history.superseded())
    @rule(which=st.integers(0, 100), verb=st.sampled_from(("start", "extend", "release", "finish", "fail")))
    def speak_late(self, which: int, verb: str) -> None:
        leases = self.world.history.superseded()
        self.world.speak_late(leases[which % len(leases)], verb)

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def guarantee(self) -> None:
        self.world.loop.settle()
        checks.at_each_step(self.world)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[1] is None:
                self.world.calm()
                checks.at_each_step(self.world)
                checks.at_rest(self.world)
        finally:
            if self.traces is not None:
                self.traces.append(self.world.history.trace)
            self.world.end()
            logging.disable(logging.NOTSET)
