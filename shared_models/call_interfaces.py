"""Contracts for what becomes of queued calls besides their run: dead letters, repeats, callbacks, control.

As those in ``interfaces``: verbs only, safe concurrently, no driver's exception leaves them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from shared_models import times
from shared_models.call import Call


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A queued call that ended without a result, whole, so that it can be queued again.

    *died_at* is wire text. *redriven_as* is the id of the call that takes its place, as soon as that has one.
    """

    call: Call
    died_at: str = times.NEVER
    redriven_as: str = ""


class DeadLetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A page of dead letters, newest call first: older than *before* (a call's id), of *fn_id* if given."""

    fn_id: str = ""
    before: str = ""
    limit: int = 30


class DeadLetters(ABC):
    """Calls that were given up, kept until somebody redrives or purges them."""

    @abstractmethod
    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Idempotent by the id of the call: the first one stays."""

    @abstractmethod
    async def get(self, call_id: str) -> DeadLetter:
        """With its payload; raises DeadLetterNotFound."""

    @abstractmethod
    async def page(self, page: DeadLetterFilter) -> list[DeadLetter]:
        """Newest first (by the call's id, descending), without payloads."""

    @abstractmethod
    async def redrive(self, call_id: str, new_id: str, instead_of: str = "") -> str:
        """Notes that *new_id* takes the call's place, if none but *instead_of* does yet.

        Answers the id that does, which an earlier one may be; raises DeadLetterNotFound.
        """

    @abstractmethod
    async def remove(self, call_ids: Sequence[str]) -> int:
        """Answers how many there were. Unknown ones are no error."""

    @abstractmethod
    async def purge(self, *, fn_id: str = "", app_id: str = "", older_than: str = "", limit: int) -> int:
        """Removes at most *limit* of those that are all that is named; answers how many.

        *fn_id*, *app_id*: of a function, of an app. *older_than*: they died before that (wire text).
        """

    @abstractmethod
    async def count(self, fn_id: str = "") -> int:
        """How many there are, of a function or in all."""


class IdempotencyKeys(ABC):
    """Which call a client's key stands for. A key is that of one function."""

    @abstractmethod
    async def claim(self, fn_id: str, key: str, call_id: str, ttl: float) -> tuple[str, bool]:
        """Makes *key* stand for *call_id* for *ttl* seconds, unless it stands for another call by now.

        Answers the id that it stands for, and whether that call is known to have been accepted. One claim of
        many at once wins, on all nodes.
        """

    @abstractmethod
    async def accept(self, fn_id: str, key: str, call_id: str) -> None:
        """The call was accepted."""

    @abstractmethod
    async def release(self, fn_id: str, key: str, call_id: str) -> None:
        """*key* stands for *call_id* no longer, unless that was accepted."""

    @abstractmethod
    async def expire(self, limit: int) -> int:
        """Removes at most *limit* keys that ran out; answers how many."""


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """A result on its way to the address that its call named.

    It holds once the record of the call has ended in *status* with *attempt*. *tries* counts the leases.
    *created* in unix seconds.
    """

    call_id: str
    attempt: int
    fn_id: str
    app_id: str
    status: str
    url: str
    body: bytes
    tries: int = 0
    created: float = 0.0


class Outbox(ABC):
    """Completion callbacks that are still to be delivered; each is one end of one attempt at a call.

    Two ends of the same attempt may be here for a while: of a node that died before it could store the one,
    and of another that gave the call up. Only one of them is in the record.
    """

    @abstractmethod
    async def put(self, callbacks: Sequence[Callback]) -> None:
        """Idempotent by call id, attempt and status; due at once."""

    @abstractmethod
    async def due(self, limit: int, ttl: float) -> list[Callback]:
        """At most *limit* that are due, longest due first, each this caller's alone for *ttl* seconds.

        Their ``tries`` are those before this one plus one.
        """

    @abstractmethod
    async def postpone(self, callback: Callback, delay: float, *, counted: bool = True) -> None:
        """Due again after *delay* seconds; without *counted* this lease is not among its ``tries``.

        That of somebody who has leased it since is left alone.
        """

    @abstractmethod
    async def remove(self, callbacks: Sequence[Callback]) -> None:
        """They are delivered, given up, or void. Unknown ones are no error."""

    @abstractmethod
    async def count(self) -> int:
        """How many are waiting."""


class CallControl(ABC):
    """What people may do to queued calls."""

    @abstractmethod
    async def cancel(self, fn_id: str, call_id: str) -> None:
        """Ends a queued or running call as ``cancelled``; one that is so already is no error.

        A runner that runs it stops its container within seconds. Raises CallNotFound, and CallEnded for one
        that has ended otherwise.
        """

    @abstractmethod
    async def cancel_queued(self, fn_id: str, limit: int) -> int:
        """Cancels at most *limit* calls of a function that wait in the queue, each as ``cancel`` does.

        Answers how many. Those that run go on, but for one that a runner takes in that moment.
        """

    @abstractmethod
    async def redrive(self, call_id: str) -> str:
        """Queues a dead letter again as a new call, whose id it answers; the letter is gone then.

        One that was left half done goes on with the id that it had. Raises DeadLetterNotFound, and what
        ``DataAccess.enqueue`` raises.
        """

    @abstractmethod
    async def redrive_all(self, fn_id: str, limit: int) -> int:
        """Redrives at most *limit* dead letters of a function, oldest first; answers how many."""
