"""The life of queued calls as a state machine: hypothesis chooses what happens, and the checks look on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.model import checks
from tests.model.api import Trouble
from tests.model.history import Outcome, Violation
from tests.model.network import Fate
from tests.model.people import People
from tests.model.runner import SPOOL
from tests.model.world import APIS, FUNCTIONS, RUNNERS, Rules, World

_apis = st.integers(0, APIS - 1)
_runners = st.integers(0, RUNNERS - 1)
_any = st.integers(0, 100)
_ATTEMPTS = (Outcome.SUCCESS, Outcome.ERROR, Outcome.TIMEOUT, Outcome.OOM, Outcome.NOT_STARTED)
_outcomes = st.lists(st.sampled_from(_ATTEMPTS), min_size=1, max_size=3).map(tuple)
_Trouble = tuple[int, Trouble]
_trouble = st.tuples(st.integers(0, 8), st.sampled_from(Trouble))
_SHIFTS = (0.0, 150.0, -150.0, 3600.0)


class CallLife(RuleBasedStateMachine):
    """One schedule; a violation is raised in the step that shows it, or at the end."""

    rules_of_nodes: ClassVar[Rules] = Rules()
    traces: ClassVar[list[list[str]] | None] = None
    """Where to put what happened."""
    kinds: ClassVar[set[str] | None] = None
    """Where to put what kinds of things happened."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.ERROR)
        self.world = World(self.rules_of_nodes)
        self.people = People(self.world)

    # -- what is meant to happen ---------------------------------------------------------------

    @rule(
        fn=st.sampled_from(sorted(FUNCTIONS)),
        priority=st.integers(0, 2),
        delay=st.sampled_from((0, 0, 0, 20)),
        outcomes=st.one_of(st.just((Outcome.SUCCESS,)), _outcomes),
        duration=st.sampled_from((0.1, 1.0, 20.0, 100.0)),
        key=st.sampled_from(("", "", "one", "two")),
        callback=st.booleans(),
        shy=st.sampled_from((False, False, True)),
        times=st.integers(1, 3),
    )
    def submit(self, fn: str, times: int, **how: Any) -> None:
        for _ in range(times):
            self.people.submit(self.people.plan(fn, **how))

    @rule(
        limits=st.lists(st.sampled_from((1, 2, 4, 0)), min_size=RUNNERS, max_size=RUNNERS),
        seconds=st.sampled_from((0.1, 1.0, 12.0, 31.0, 70.0)),
    )
    def work(self, limits: list[int], seconds: float) -> None:
        for number, limit in enumerate(limits):
            if limit:
                self.world.pull(number, limit, 0.0)
        self.world.wait(seconds)

    @rule(number=_runners, limit=st.integers(1, 4), wait=st.sampled_from((0.0, 5.0)))
    def pull(self, number: int, limit: int, wait: float) -> None:
        self.world.pull(number, limit, wait)

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0, 12.0, 31.0, 70.0)))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @precondition(lambda self: self.world.history.plans)
    @rule(number=_apis, which=_any, what=st.sampled_from(("submit", "cancel", "redrive")), trouble=_trouble)
    def ask(self, number: int, which: int, what: str, trouble: _Trouble) -> None:
        self._disturb(number, trouble)
        plans = list(self.world.history.plans.values())
        call = plans[which % len(plans)].call
        letters = sorted(self.world.letters())
        if letters and what != "cancel":
            self.people.redrive(number, letters[which % len(letters)])
        elif what == "cancel":
            self.people.cancel(number, call.id)
        else:
            self.people.submit(call)

    # -- what is not ---------------------------------------------------------------------------

    @rule(before=st.integers(0, 4), fates=st.lists(st.sampled_from(list(Fate)[1:]), min_size=1, max_size=3))
    def disturb_requests(self, before: int, fates: list[Fate]) -> None:
        self.world.network.fates.extend([Fate.WELL] * before + fates)

    @rule(
        number=_apis,
        trouble=_trouble,
        what=st.sampled_from(("stores", "stores", "restart", "clean", "clock")),
    )
    def trouble_api(self, number: int, trouble: _Trouble, what: str) -> None:
        if what == "restart":
            self.world.restart_api(number)
        self._disturb(number, trouble)
        if what == "clean":
            self.world.clean(number)
        elif what == "clock":
            self.world.apis[number].ahead = _SHIFTS[trouble[0] % len(_SHIFTS)]

    def _disturb(self, number: int, trouble: _Trouble) -> None:
        before, kind = trouble
        if kind is not Trouble.NONE:
            self.world.apis[number].troubles.extend([Trouble.NONE] * before + [kind])

    @rule(
        number=_runners,
        what=st.sampled_from(("kill", "stop", "cut", "deaf", "clock", "full", "isolate")),
        shift=st.sampled_from(_SHIFTS),
    )
    def trouble_runner(self, number: int, what: str, shift: float) -> None:
        cut, name = self.world.network.cut, f"runner{number}"
        runner = self.world.runners[number]
        if runner is None:
            self.world.start_runner(number, spool=0 if what == "full" else SPOOL)
        elif what == "clock":
            self.world.runner_clocks[number] = shift
        elif what == "deaf":
            runner.deaf = True
        elif what == "stop":
            # In the middle of its work, if there is any.
            self.world.pull(number, 4, 0.0)
            self.world.wait(1.0)
            self.world.stop_runner(number)
        elif what == "kill":
            self.world.kill_runner(number)
        elif what == "isolate":
            # Long enough for what ends meanwhile to be spooled.
            cut.add(name)
            self.world.wait(45.0)
            self.world.kill_runner(number)
            cut.discard(name)
        elif name in cut:
            cut.discard(name)
        else:
            cut.add(name)

    @precondition(lambda self: self.world.history.old_leases())
    @rule(
        number=_apis,
        which=_any,
        verb=st.sampled_from(("start", "extend", "release", "finish", "fail")),
        trouble=_trouble,
    )
    def speak_late(self, number: int, which: int, verb: str, trouble: _Trouble) -> None:
        self._disturb(number, trouble)
        leases = self.world.history.old_leases()
        self.people.speak_late(number, leases[which % len(leases)], verb)

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def guarantee(self) -> None:
        with self._told():
            self.world.loop.settle()
            checks.at_each_step(self.world)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[1] is None:
                with self._told():
                    self.world.calm()
                    checks.at_each_step(self.world)
                    checks.at_rest(self.world)
        finally:
            if self.traces is not None:
                self.traces.append(self.world.history.trace)
            if self.kinds is not None:
                self.kinds.update(self.world.history.kinds)
            self.world.end()
            logging.disable(logging.NOTSET)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A violation comes with the story of its call."""
        try:
            yield
        except Violation as exc:
            exc.add_note("\n".join(self.world.history.story(str(exc))))
            raise
