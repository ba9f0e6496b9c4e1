"""The four contracts between the rooms. Verbs only: lifetime lives in openers (``open_x``).

Each has one conformance suite under ``tests/conformance`` that runs on every implementation.
All methods may be called concurrently. None of them raises a driver's own exceptions: what went
wrong is an ``FnError``; a backend that does not answer is an ``Unavailable``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence
from typing import ClassVar

import msgspec

from shared_models import times
from shared_models.app import App
from shared_models.call import Call, Finished, LeasedCall, LeaseKey
from shared_models.fn import Fn
from shared_models.route import Route
from shared_models.runner import Runner, RunnerReport, RunnerState
from shared_models.trigger import Trigger, TriggerTarget
from shared_models.wanted import Change, Wanted, WarmTarget


class AppFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A page of apps by name: *limit* of those after *after*; *name* alone when it is given."""

    name: str = ""
    after: str = ""
    limit: int = 30


class FnFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A page of one app's functions by name."""

    app_id: str
    name: str = ""
    after: str = ""
    limit: int = 30


class TriggerFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A page of one app's triggers by name, then id; *after* is the last of a page (``name``, ``id``)."""

    app_id: str
    fn_id: str = ""
    name: str = ""
    after: tuple[str, str] | None = None
    limit: int = 30


class RouteFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A page of one app's routes by path: *limit* of those after *after*, of *image* where it is given."""

    app_id: str
    image: str = ""
    after: str = ""
    limit: int = 30


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A page of calls, newest first: those older than *before* (an id), of the route *path* if given.

    ``from_time`` and ``to_time`` (wire text, exclusive) bound ``created_at``. Stores seek by the time in
    ids: a bound may miss a call whose id and ``created_at`` are more than a minute apart.
    """

    app_id: str = ""
    fn_id: str = ""
    path: str = ""
    status: str = ""
    from_time: str = ""
    to_time: str = ""
    before: str = ""
    limit: int = 30


class Purge(msgspec.Struct, frozen=True, kw_only=True):
    """An order to remove the calls and logs of an app or a function, those of a time range if given.

    Times are wire text and exclusive, as in CallFilter. An order without a range stands for a removed
    app or function, whose last calls may still be running: it is kept for a while after it found nothing.
    """

    id: str = ""
    app_id: str = ""
    fn_id: str = ""
    from_time: str = ""
    to_time: str = ""
    created_at: str = times.NEVER


class KeptResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a function answered to a queued call: its *body* in pieces, as it came; *truncated*: cut.

    ``content_type`` is printable ASCII; "" where the answer had none.
    """

    content_type: str
    truncated: bool
    body: AsyncIterator[bytes]


class Datastore(ABC):
    """Apps, functions, triggers and routes, and the registry of runner nodes.

    ``insert_*`` and ``update_*`` do what ``created`` and ``merged`` of the resource do, in one
    transaction, and raise what those raise. Names are unique (apps: overall, functions: per app,
    triggers: per function), and so are the sources of an app's triggers per type. Listings are
    ordered by name in code point order on every backend.
    Source: api/models/datastore.go (Fn 0.3.484 and 0.3.753).
    """

    @abstractmethod
    async def app_id(self, name: str) -> str:
        """The id of the app called *name*; raises AppNotFound."""

    @abstractmethod
    async def app(self, app_id: str) -> App:
        """Raises AppNotFound."""

    @abstractmethod
    async def apps(self, page: AppFilter) -> list[App]:
        """Ordered by name."""

    @abstractmethod
    async def insert_app(self, app: App) -> App:
        """The app with id and times; raises AppExists when its name is taken."""

    @abstractmethod
    async def update_app(self, app_id: str, change: App) -> App:
        """The app after the change; raises AppNotFound, AppNameImmutable."""

    @abstractmethod
    async def remove_app(self, app_id: str) -> None:
        """With its functions, triggers and routes, in one transaction; raises AppNotFound.

        The same transaction leaves a Purge of its calls and logs, which stay readable until then.
        """

    @abstractmethod
    async def fn(self, fn_id: str) -> Fn:
        """Raises FnNotFound."""

    @abstractmethod
    async def fns(self, page: FnFilter) -> list[Fn]:
        """Ordered by name; empty for an unknown app."""

    @abstractmethod
    async def insert_fn(self, fn: Fn) -> Fn:
        """The function with id, times and its app's shape; raises AppNotFound, FnExists."""

    @abstractmethod
    async def update_fn(self, fn_id: str, change: Fn) -> Fn:
        """The function after the change; raises FnNotFound."""

    @abstractmethod
    async def remove_fn(self, fn_id: str) -> None:
        """With its triggers, in one transaction that leaves a Purge of its calls; raises FnNotFound."""

    @abstractmethod
    async def trigger(self, trigger_id: str) -> Trigger:
        """Raises TriggerNotFound."""

    @abstractmethod
    async def trigger_by_source(self, app_id: str, type_: str, source: str) -> Trigger:
        """The trigger of an app with exactly this type and source; raises TriggerNotFound."""

    @abstractmethod
    async def triggers(self, page: TriggerFilter) -> list[Trigger]:
        """Ordered by name, then id; empty for an unknown app."""

    @abstractmethod
    async def insert_trigger(self, trigger: Trigger) -> Trigger:
        """Raises AppNotFound, FnNotFound, TriggerFnNotOwned, TriggerSourceExists, TriggerExists.

        In this order: a taken source is named before a taken name.
        """

    @abstractmethod
    async def update_trigger(self, trigger_id: str, change: Trigger) -> Trigger:
        """Raises TriggerNotFound, FnNotFound, TriggerFnNotOwned, TriggerSourceExists, TriggerExists."""

    @abstractmethod
    async def remove_trigger(self, trigger_id: str) -> None:
        """Raises TriggerNotFound."""

    @abstractmethod
    async def route(self, app_id: str, path: str) -> Route:
        """Raises RouteNotFound, also for an unknown app."""

    @abstractmethod
    async def routes(self, page: RouteFilter) -> list[Route]:
        """Ordered by path; empty for an unknown app."""

    @abstractmethod
    async def insert_route(self, route: Route) -> Route:
        """The route with defaults and times; raises AppNotFound, RouteExists."""

    @abstractmethod
    async def update_route(self, app_id: str, path: str, change: Route) -> Route:
        """The route after the change; raises RouteNotFound, RoutePathImmutable."""

    @abstractmethod
    async def put_route(self, route: Route) -> tuple[Route, bool]:
        """*route* inserted or, where its app has one of this path, laid over that one.

        Answers it as stored, and whether it is new; raises AppNotFound.
        """

    @abstractmethod
    async def remove_route(self, app_id: str, path: str) -> None:
        """Raises RouteNotFound. The calls of the route stay readable."""

    @abstractmethod
    async def changes(self, since: str, limit: int) -> list[Change]:
        """Functions and routes that were made or changed at *since* or later, at most *limit*, in order."""

    @abstractmethod
    async def warm(self, limit: int) -> list[WarmTarget]:
        """Functions and routes that want warm containers, at most *limit* of each, in a fixed order.

        By their own annotation or, where they have none, by their app's.
        """

    @abstractmethod
    async def put_runner(self, report: RunnerReport) -> RunnerState:
        """Registers or renews a runner, seen now; answers the state that it is to be in."""

    @abstractmethod
    async def runners(self) -> list[Runner]:
        """All that were seen within a day, by id; those that missed three heartbeats are ``lost``."""

    @abstractmethod
    async def set_runner_state(self, runner_id: str, state: RunnerState) -> Runner:
        """Has each heartbeat from now on tell the runner to be *state* (active, draining).

        Raises RunnerNotFound for one that was not seen within a day.
        """

    @abstractmethod
    async def insert_purge(self, purge: Purge) -> Purge:
        """The order with id and time; whoever cleans up carries it out."""

    @abstractmethod
    async def purges(self, limit: int) -> list[Purge]:
        """The oldest orders, by id."""

    @abstractmethod
    async def remove_purge(self, purge_id: str) -> None:
        """It is carried out. An unknown one is no error."""

    @abstractmethod
    async def hold(self, name: str, holder: str, ttl: float) -> bool:
        """Whether *holder* has the lock *name* now, for *ttl* seconds: new, renewed, or run out by others.

        Advisory: by the clocks of the nodes, for work that does no harm when two do it. A *ttl* of 0
        gives the lock back.
        """


class LogStore(ABC):
    """Records of calls, and their logs. Guards the life of a call: a final state never changes.

    A record's *token* is that of the lease that may speak for the call; it never leaves the store.
    ``whole`` tells that a record is all of the call, as it was handed in, and not only what became of it;
    ``keeps`` that there are records at all: without them leases alone say whose a call is.
    Source: api/models/logs.go and calls.go (Fn 0.3.484), extended by states and fencing.
    """

    whole: ClassVar[bool] = False
    keeps: ClassVar[bool] = True

    @abstractmethod
    async def insert_call(self, call: Call) -> bool:
        """Records *call* as ``queued``; False (and nothing changes) when its id is known already."""

    @abstractmethod
    async def remove_call(self, call_id: str) -> None:
        """Forgets a record that is still ``queued`` with attempt 0: its call was not accepted."""

    @abstractmethod
    async def claim(self, leased: Sequence[LeasedCall], node: str) -> list[str]:
        """Gives each call to its new lease: token, attempt and *node* into the record, one transaction.

        Answers the ids that must not run: those whose record is final. A call without a record gets
        one (it was enqueued by a node that died before it could write it).
        """

    @abstractmethod
    async def unclaim(self, keys: Sequence[LeaseKey], *, counted: bool = False, log: bytes = b"") -> None:
        """Back to ``queued`` without a holder; those that others hold are left alone.

        The attempt stays *counted*, or was none. What it wrote to its *log* (of a single key) is kept, and is
        a part of the call's log.
        """

    @abstractmethod
    async def start_call(self, key: LeaseKey, started_at: str) -> None:
        """The call is ``running`` from now. The same key again changes nothing and is no error.

        Raises LeaseLost when the record is final or another lease holds it. With an empty token (an
        unmodified Fn runner) the current lease counts, once: a second start raises LeaseLost.
        """

    @abstractmethod
    async def finish_calls(self, batch: Sequence[Finished]) -> list[str]:
        """Stores the final records and logs of *batch* in one transaction; answers the refused ids.

        A result is refused when the record is final with another result or held by another token.
        What a function answered is kept with the final record where ``async_policy.keeps_result`` says so.
        The same result again is not refused and changes nothing. A sync call (empty token, no
        record) is inserted. An ``async`` call of an unmodified Fn runner (empty token) is accepted
        while its record is ``running``, or when it has none.
        """

    @abstractmethod
    async def call(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> Call:
        """The record, of that function or app where one is named; raises CallNotFound.

        Without either, only a call that has not ended needs to be found.
        """

    @abstractmethod
    async def calls(self, page: CallFilter) -> list[Call]:
        """Newest first (by id, descending)."""

    @abstractmethod
    async def log(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> AsyncIterator[bytes]:
        """The log in pieces, empty for a call that wrote none; raises CallLogNotFound when called.

        A call that has not ended has no log yet. Where earlier attempts wrote something, it is all attempts'
        logs, each after a line that names it.
        """

    @abstractmethod
    async def result(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> KeptResult:
        """The function's answer to a queued call that has ended; raises CallResultNotFound when called.

        Of several attempts, that to the last one, where that was answered.
        """

    @abstractmethod
    async def unqueued(self, older_than: str, limit: int) -> list[str]:
        """Ids of records that are ``queued`` and were created before *older_than*, oldest first."""

    @abstractmethod
    async def remove_calls(self, purge: Purge, limit: int) -> int:
        """Removes at most *limit* of the ended calls that *purge* names, logs and results first; how many.

        0 when none is left. Calls that have not ended stay.
        """

    @abstractmethod
    async def expire_calls(self, older_than: str, limit: int) -> int:
        """Removes at most *limit* ended calls made before *older_than*, logs and results first; how many.

        The age is that of the id, which every store can seek by.
        """

    @abstractmethod
    async def expire_logs(self, older_than: str, limit: int) -> int:
        """Removes logs and kept results of at most *limit* calls made before *older_than*; of how many."""


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """What one function has in the queue; *oldest* is the wire time of its oldest waiting call."""

    fn_id: str
    queued: int
    leased: int
    oldest: str


class WaitingCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that nobody holds: without its payload, and with the attempts that it has had.

    *age*: seconds since its push, by the queue's clock. *place*: where a page of them goes on.
    """

    call: Call
    age: float
    place: str


class MessageQueue(ABC):
    """Async calls in order: higher priority first, first in first out within one.

    Two steps, ``reserve`` then ``delete``, so that a lost runner loses no call: a lease that is
    neither extended nor deleted within its ttl runs out, and the call is back in its old place with
    the next attempt number. Durable queues answer a push only when the call is on disk.
    Source: api/models/mq.go (Fn 0.3.484), extended by leases.
    """

    @abstractmethod
    async def push(self, call: Call) -> bool:
        """Queues *call*, due after ``call.delay`` seconds; False when its id is queued already. Idempotent.

        Raises QueueUnavailable when the backend did not answer: *call* may or may not be queued.
        """

    @abstractmethod
    async def reserve(
        self, limit: int, wait: float, ttl: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        """At most *limit* due calls, each leased for *ttl* seconds; waits up to *wait* s for the first.

        Calls of the functions *without* (ids) are passed over, and keep their places.

        A push, a call that falls due and a lease that runs out wake a waiting reserve.
        The call's own ``attempt`` equals that of its lease.
        """

    @abstractmethod
    async def reserve_named(self, call_ids: Sequence[str], ttl: float) -> list[LeasedCall]:
        """Leases those of the calls that are due and that nobody holds, as ``reserve`` does, without a wait.

        Not all of them where their payloads are too large for one answer.
        """

    @abstractmethod
    async def waiting(self, fn_id: str, after: str, limit: int) -> list[WaitingCall]:
        """At most *limit* calls of a function that nobody holds, due or not, behind the place *after*.

        "" for the first page; an empty page is the end. The order is the queue's own: one that changes
        hands meanwhile may be missed, or come twice. Costs no more the more there are in front or behind.
        """

    @abstractmethod
    async def extend(self, keys: Sequence[LeaseKey], ttl: float) -> list[str]:
        """Renews leases for *ttl* seconds from now; answers the ids that are no longer held. Idempotent.

        A lease that ran out but was given to nobody else is renewed; one that has nine tenths of *ttl* left
        may stay as it is. An empty token renews the call's lease whoever holds it (for unmodified Fn runners,
        which know no tokens).
        """

    @abstractmethod
    async def release(self, keys: Sequence[LeaseKey]) -> None:
        """Gives calls back at once, their attempt uncounted; those that are not held are left alone."""

    @abstractmethod
    async def requeue(self, keys: Sequence[LeaseKey], delay: float) -> list[str]:
        """Gives calls back with their attempt counted, due after *delay* seconds, in their old places.

        Answers the ids that are not held by the token of their key.
        """

    @abstractmethod
    async def delete(self, keys: Sequence[LeaseKey]) -> None:
        """Forgets calls whose lease is named, or whose lease ran out. Unknown ones are no error.

        An empty token deletes the call whoever holds it.
        """

    @abstractmethod
    async def holds(self, call_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are in the queue, waiting or leased."""

    @abstractmethod
    async def find(self, call_ids: Sequence[str]) -> dict[str, Call]:
        """Those of the calls that are in the queue, waiting or leased, whole (payload included), by id.

        Their ``attempt`` is that of the latest lease; 0 when there was none that counts.
        """

    @abstractmethod
    async def depth(self, fn_id: str) -> QueueDepth:
        """Of one function; zeros when it has nothing in the queue. Costs no more the more others have."""

    @abstractmethod
    async def depths(self) -> list[QueueDepth]:
        """Per function, by fn_id; functions with nothing queued are left out."""


class DataAccess(ABC):
    """All that a runner node knows of the world. Direct on the stores, or over HTTP.

    Look-ups raise the not-found errors of the datastore. Every mutation may be repeated.
    Source: api/agent/data_access.go (Fn 0.3.484), extended: docs/hybrid-protocol.md.
    """

    @abstractmethod
    async def app_id(self, name: str) -> str:
        """Raises AppNotFound."""

    @abstractmethod
    async def app(self, app_id: str) -> App:
        """Raises AppNotFound."""

    @abstractmethod
    async def route(self, app_id: str, path: str) -> Route:
        """Raises RouteNotFound."""

    @abstractmethod
    async def fn(self, fn_id: str) -> Fn:
        """Raises FnNotFound."""

    @abstractmethod
    async def trigger(self, app_name: str, type_: str, source: str) -> TriggerTarget:
        """Trigger, function and app; raises AppNotFound, TriggerNotFound."""

    @abstractmethod
    async def enqueue(self, call: Call) -> str:
        """Accepts *call*: when this returns, it is recorded and durably queued. Idempotent by id.

        Answers the id under which it is accepted: that of an earlier call of the function which had the
        same ``idempotency_key`` within a day, else its own. Raises AppNotFound, FnNotFound, Invalid (an
        image that the function does not have), DoesNotFit (larger than any runner), QueueFull and
        QueueUnavailable, after which the call is not accepted.
        """

    @abstractmethod
    async def dequeue(
        self, node: str, limit: int, wait: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        """At most *limit* calls, leased to *node*; waits up to *wait* seconds (30 at most) for the first.

        Calls of the functions *without* (ids, 100 at most) are left to others.

        Not repeated on an unclear answer: what was leased comes back when the lease runs out.
        """

    @abstractmethod
    async def start(self, leased: LeasedCall) -> None:
        """Must come before the run; raises LeaseLost, after which the call must not run. Idempotent."""

    @abstractmethod
    async def extend(self, keys: Sequence[LeaseKey]) -> list[str]:
        """Renews leases; answers the ids that are lost, whose runs must stop."""

    @abstractmethod
    async def release(self, keys: Sequence[LeaseKey]) -> None:
        """Gives unstarted calls back; the next runner gets them at once."""

    @abstractmethod
    async def finish(self, batch: Sequence[Finished]) -> list[str]:
        """Stores results before it returns; answers the ids that were refused. Idempotent.

        A queued call that ended without a result (``WITHOUT_RESULT``), or in a way that its function wants
        repeated, goes back to the queue while it has attempts left, and is a dead letter after the last.
        """

    @abstractmethod
    async def wanted(self, since: str) -> Wanted | None:
        """What runners are to have ready; *since* is the cursor of the last answer, "" for one that begins.

        None where the API node is too old to say so.
        """

    @abstractmethod
    async def heartbeat(self, report: RunnerReport) -> RunnerState:
        """Says that the runner lives; answers the state that it is to be in."""
