"""What each function has of a runner: containers, starts, and calls that wait with their bodies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from runner_node.calls import Target
from shared_models.async_policy import max_concurrency

if TYPE_CHECKING:
    from runner_node.slots import SlotQueue


class Share:
    """Of one function, over all of its versions and, for cold ones, all of its calls.

    *containers* are those that serve or may serve calls, *leaving* those that are being removed; *calls*
    that wait for one hold *size* bytes.
    """

    __slots__ = (
        "calls",
        "cap",
        "containers",
        "leaving",
        "lines",
        "lost",
        "made_way",
        "name",
        "queues",
        "size",
        "starting",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.cap = 0
        """Containers at most, 0 for no limit; that of the version that was asked for last."""
        self.queues = 0
        self.lines: dict[SlotQueue, None] = {}
        """Queues in which somebody waits, in the order in which they began to."""
        self.containers = 0
        self.starting = 0
        self.leaving = 0
        self.lost = -math.inf
        """When a container of it was retired, or failed to start, for the last time; event loop's seconds."""
        self.made_way = -math.inf
        """When others began to make way for it, since it has started a container."""
        self.calls = 0
        self.size = 0

    @property
    def empty_handed(self) -> bool:
        """Whether it neither has a container nor is getting one."""
        return not (self.containers or self.starting)

    def deprived_since(self) -> float | None:
        """Since when somebody waits while it has no container; None when that is not so."""
        if self.empty_handed:
            for queue in list(self.lines):
                if head := queue.head():
                    return max(head.since, self.lost)
        return None

    @property
    def capped(self) -> bool:
        """Whether it has as many containers as it may have; those that are being removed count."""
        return bool(self.cap) and self.containers + self.starting + self.leaving >= self.cap


class Shares:
    """All of them, by the name of the function; those of functions without any slots are forgotten."""

    def __init__(self) -> None:
        self._by_name: dict[str, Share] = {}

    def join(self, target: Target) -> Share:
        """The share of *target*'s function, for one more queue of slots."""
        share = self._by_name.get(target.function)
        if share is None:
            share = self._by_name[target.function] = Share(target.function)
        share.queues += 1
        share.cap = max_concurrency(target.annotations)
        return share

    def waiting(self) -> Iterator[Share]:
        """Those of functions whose calls wait for a container."""
        return (share for share in self._by_name.values() if share.lines)

    def leave(self, share: Share) -> None:
        """A queue of slots is gone."""
        share.queues -= 1
        if not share.queues:
            self._by_name.pop(share.name, None)


class WaitingRoom:
    """Bounds the calls that wait for a container, and the bytes of their bodies, on the whole node.

    One function gets at most as many places as it leaves to all others: half of them when it is the only
    one, a third when there are two, and so on. However many functions are stuck, there is room for the
    next one. 0 is no limit.
    """

    def __init__(self, calls: int, size: int) -> None:
        self._limits = calls, size
        self.calls = 0
        self.size = 0

    def enter(self, share: Share, size: int) -> str:
        """Takes a place for a body of *size* bytes, and answers ""; or the reason why there is none."""
        calls, bytes_ = self._limits
        if calls and share.calls and share.calls >= calls - self.calls:
            return f"{share.calls} calls of this function wait for a container, {self.calls} of all functions"
        # Whatever its size, a body may wait where no other does: else it could never be served.
        if bytes_ and self.size and share.size + size > bytes_ - self.size:
            return (
                f"the bodies of {share.calls} calls of this function that wait have {share.size} bytes, "
                f"those of all functions {self.size}"
            )
        share.calls += 1
        share.size += size
        self.calls += 1
        self.size += size
        return ""

    def leave(self, share: Share, size: int) -> None:
        """Gives back what ``enter`` took."""
        share.calls -= 1
        share.size -= size
        self.calls -= 1
        self.size -= size
