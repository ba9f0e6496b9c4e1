"""What happened in a run of the model: calls, leases, runs of the function, ends, and faults."""

from __future__ import annotations

import asyncio
import enum
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shared_models.call import Call, LeasedCall, LeaseKey
from shared_models.errors import FnError


class Crashed(BaseException):
    """The node is dead: what it still tries has no effect."""


class Violation(AssertionError):
    """A rule of the guarantee is broken."""


def without_numbers(text: str) -> str:
    """A kind of line of the trace."""
    return re.sub(r"\d+", "", text)


class Outcome(enum.Enum):
    """How one attempt at a call ends when nothing else happens to it."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    OOM = "oom"
    CUT_OFF = "cut_off"
    """The runner stopped while it ran."""
    NOT_STARTED = "not_started"
    """The runner gets no container for it: the function never runs."""


@dataclass(slots=True)
class Plan:
    """What a call does when it is run: an outcome for each attempt, the last one for all further ones."""

    call: Call
    name: str
    outcomes: tuple[Outcome, ...]
    duration: float
    """Virtual seconds of one run."""
    shy: bool = False
    """The first runner that gets it has no engine at the moment, and gives it back."""


@dataclass(slots=True, frozen=True)
class Run:
    """The function was begun: once more, whatever comes of it."""

    call_id: str
    attempt: int
    runner: str
    at: float


@dataclass(slots=True)
class History:
    """All ids are those of calls."""

    plans: dict[str, Plan] = field(default_factory=dict)
    accepted: dict[str, float] = field(default_factory=dict)
    """When an API node answered that it has them: whether that answer came through or not."""
    stalled: set[str] = field(default_factory=set)
    """Those of which an API node kept something in hand for longer than it may."""
    runs: list[Run] = field(default_factory=list)
    handed_out: dict[str, list[LeasedCall]] = field(default_factory=lambda: defaultdict(list))
    """Leases that left an API node for a runner, or were lost on that way."""
    leases: dict[str, LeasedCall] = field(default_factory=dict)
    """All that the queue ever gave, by token."""
    released: set[str] = field(default_factory=set)
    """Tokens of leases that were given back: their runners do not run those calls, and end none."""
    current: dict[str, str] = field(default_factory=dict)
    """The token of the lease that the queue knows."""
    queued_as: dict[str, Call] = field(default_factory=dict)
    """As they came into the queue: of several with one idempotency key it may be any."""
    touched: dict[str, str] = field(default_factory=dict)
    """Those that a fault has to do with, and the first such fault."""
    finals: dict[str, tuple[object, ...]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    """Those that an API node said it has cancelled."""
    cancelled_early: set[str] = field(default_factory=set)
    """Those that somebody tried to cancel before they were accepted."""
    redriven: set[str] = field(default_factory=set)
    """Dead letters that somebody tried to redrive."""
    keys: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """The ids in force that were answered for (function, idempotency key)."""
    defects: list[BaseException] = field(default_factory=list)
    """Violations in the background, and what no node may raise."""
    kinds: set[str] = field(default_factory=set)
    """What the lines of the trace say, without the numbers of nodes."""
    trace: list[str] = field(default_factory=list)

    def name(self, call_id: str) -> str:
        """A short name that is the same in every run of the same schedule."""
        plan = self.plans.get(call_id)
        return plan.name if plan else "?"

    def touch(self, call_ids: Iterable[str], why: str) -> None:
        """A fault has to do with these calls."""
        for call_id in call_ids:
            self.touched.setdefault(call_id, why)

    def note(self, at: float, text: str, call_ids: Iterable[str] = ()) -> None:
        """One line of the trace."""
        self.kinds.add(without_numbers(text))
        names = " ".join(sorted(self.name(call_id) for call_id in call_ids))
        self.trace.append(f"{at:9.3f} {text} {names}".rstrip())

    def story(self, text: str) -> list[str]:
        """The lines of the trace about the calls that *text* names, and about troubles of nodes."""
        names = set(re.findall(r"call\d+\+*", text))
        return [
            line
            for line in self.trace
            if names.intersection(line.split()) or re.search(r" api\d \w+\.| died| cleans up .", line)
        ]

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Hears of the end of a task that nobody waits for, and whether it is one that a node may have."""
        exc = None if task.cancelled() else task.exception()
        if exc is not None and not isinstance(exc, (FnError, Crashed)):
            self.defects.append(exc)

    def runs_of(self, call_id: str) -> list[Run]:
        """In the order in which they began."""
        return [run for run in self.runs if run.call_id == call_id]

    def outcome(self, call_id: str, attempt: int) -> Outcome:
        """What becomes of this attempt."""
        outcomes = self.plans[call_id].outcomes
        return outcomes[min(attempt, len(outcomes)) - 1]

    def old_leases(self) -> list[LeasedCall]:
        """Those that the queue knows no more."""
        return [one for one in self.leases.values() if not self.holds(one.key)]

    def superseded(self, leased: LeasedCall) -> bool:
        """Whether a runner may have it that does not know that another one has the call now."""
        if leased.key.token in self.released:
            return False
        order = list(self.leases)
        mine = order.index(leased.key.token)
        return any(order.index(one.key.token) > mine for one in self.handed_out.get(leased.call.id, []))

    def holds(self, key: LeaseKey) -> bool:
        """Whether the queue knows this lease, as far as can be told from outside."""
        return bool(key.token) and self.current.get(key.id) == key.token
