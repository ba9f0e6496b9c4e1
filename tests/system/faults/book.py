"""What clients were told, and when: the driver's own knowledge, against which everything is checked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

FINAL = frozenset({"success", "error", "timeout", "cancelled"})


@dataclass(slots=True)
class Accepted:
    """A detached call that was answered 202, at unix seconds *at*.

    *cancel*: "heard" or "unclear" once its end was asked for.
    """

    call_id: str
    fn: str
    do: str
    at: float
    key: str = ""
    priority: int = 0
    until: int = 0
    cancel: str = ""
    callback: bool = False


@dataclass(slots=True)
class Final:
    """The state in which a call was first seen ended, and when (unix seconds)."""

    status: str
    attempt: int
    reason: str
    completed_at: str
    seen: float

    @property
    def told(self) -> tuple[str, int, str, str]:
        """What must never change."""
        return self.status, self.attempt, self.reason, self.completed_at


@dataclass(slots=True)
class Sync:
    """A sync call: its *status* (0: a connection error; -1: no answer in time), and the seconds it took."""

    status: int
    took: float
    call_id: str = ""


@dataclass(slots=True)
class Book:
    """All of it. *functions*: ids by the driver's name for them."""

    functions: dict[str, str] = field(default_factory=dict)
    accepted: dict[str, Accepted] = field(default_factory=dict)
    by_key: dict[str, list[str]] = field(default_factory=dict)
    """Ids that were answered to each idempotency key, one per answer."""
    refusals: Counter[str] = field(default_factory=Counter)
    sync: list[Sync] = field(default_factory=list)
    finals: dict[str, Final] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    """Calls whose final state was seen to change, with both."""
    recoveries: list[tuple[str, float, float]] = field(default_factory=list)
    """Fault, seconds from its end to the next 202 of its place, and to the end of that call."""
    callbacks: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    """Status and attempt of each callback that was taken, by call."""
    unrecovered: list[str] = field(default_factory=list)
    """Faults after whose end nothing worked for too long."""
    frozen: list[tuple[str, float, float]] = field(default_factory=list)
    """Node ids, and from when to when (unix seconds) they stood still."""
    unused: set[str] = field(default_factory=set)
    """Faults that could not be made here, with the reason."""
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def accept(self, call: Accepted) -> None:
        """A repeated one of the same key is noted beside the first."""
        if call.key:
            self.by_key.setdefault(call.key, []).append(call.call_id)
        self.accepted.setdefault(call.call_id, call)

    def see(self, call_id: str, record: dict[str, object], *, known: bool = True) -> None:
        """A record as an API node shows it. *known*: an end of its call had been seen before this was asked.

        Of two who ask at the same time, the one with the older answer may have it later.
        """
        if record["status"] not in FINAL:
            if known and call_id in self.finals:
                self.changed.append(f"{call_id}: {self.finals[call_id].told}, then {record['status']}")
            return
        now = Final(
            str(record["status"]), int(str(record["attempt"])), str(record.get("reason", "")),
            str(record["completed_at"]), time.time(),
        )  # fmt: skip
        first = self.finals.setdefault(call_id, now)
        if first.told != now.told:
            self.changed.append(f"{call_id}: {first.told}, then {now.told}")

    @property
    def uncalled(self) -> list[str]:
        """Calls whose callback has not come."""
        wanted = (call.call_id for call in self.accepted.values() if call.callback)
        return [call_id for call_id in wanted if call_id not in self.callbacks]

    @property
    def open(self) -> list[str]:
        """Accepted calls that nobody has seen ended."""
        return [call_id for call_id in self.accepted if call_id not in self.finals]
