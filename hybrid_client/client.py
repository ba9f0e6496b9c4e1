"""DataAccess over HTTP: how a runner node meets its API node (docs/hybrid-protocol.md).

An unmodified Fn 0.3.484 API node is met in its own words (``compat``) as soon as it turns out that
it does not know ours.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from hybrid_client import compat, on_wire
from hybrid_client.answers import Answer, UnknownThere, checked
from hybrid_client.settings import ClientSettings
from hybrid_client.starts import COMPAT_FOR, Starts
from hybrid_client.transport import Transport, new_session
from shared_models import errors, wire
from shared_models.app import App
from shared_models.call import Call, Finished, LeasedCall, LeaseKey
from shared_models.env import InvalidSettings
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from shared_models.route import Route
from shared_models.runner import RunnerReport, RunnerState
from shared_models.trigger import TriggerTarget
from shared_models.unclaimed import Unclaimed
from shared_models.wanted import Wanted

__all__ = ["ClientSettings", "HTTPDataAccess", "open_data_access"]

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_WITHOUT = 100
"""Functions that a dequeue may pass over."""
LEFT_ALONE = 1.0
"""Seconds for which a dequeue that was given up may still be answered: where calls come all the time the
answer is likely to be on its way, and what it brings would be lost until the lease runs out."""
REMEMBERED = 4096
"""Look-ups whose last value is kept for its ETag."""


@asynccontextmanager
async def open_data_access(
    settings: ClientSettings, tls: ssl.SSLContext | None = None
) -> AsyncIterator[DataAccess]:
    """Data access through the API nodes of *settings*; raises InvalidSettings when there are none.

    *tls*: how they are met where their addresses are https; None: with the authorities of the system.

    Nothing is asked of them yet: a runner node may start before its API node does.
    """
    if not settings.api_urls:
        raise InvalidSettings(["FN_RUNNER_API_URL: must be set to the address of an API node"])
    async with new_session(settings, tls) as session:
        access = HTTPDataAccess(Transport(session, settings))
        try:
            yield access
        finally:
            await access.settle()


class HTTPDataAccess(DataAccess):
    """DataAccess whose every verb is a request. What the API node refuses is raised as it raised it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._remembered: OrderedDict[str, tuple[str, Any]] = OrderedDict()
        self._compat_until = 0.0
        self._spoke_ours = False
        self._starts = Starts(self._post)
        self._unclaimed = Unclaimed(self.release, LEFT_ALONE)

    async def settle(self) -> None:
        """Returns when what came for dequeues that were given up has gone back: soon."""
        await self._unclaimed.settle()

    # -- look-ups ------------------------------------------------------------------------------

    async def app_id(self, name: str) -> str:
        found = await self._look_up(f"/v1/apps/{_part(name)}", on_wire.AppInEnvelope, errors.AppNotFound)
        return _whole(found.app, found.app.id).id

    async def app(self, app_id: str) -> App:
        found = await self._look_up(
            f"/v1/runner/apps/{_part(app_id)}", on_wire.AppInEnvelope, errors.AppNotFound
        )
        return _whole(found.app, found.app.id)

    async def route(self, app_id: str, path: str) -> Route:
        below = quote(path.removeprefix("/"), safe="/")
        address = f"/v1/runner/apps/{_part(app_id)}/routes/{below}"
        found = await self._look_up(address, on_wire.RouteInEnvelope, errors.RouteNotFound)
        return _whole(found.route, found.route.image)

    async def fn(self, fn_id: str) -> Fn:
        async def in_fns_words() -> Fn:
            fn = await self._look_up(f"/v2/fns/{_part(fn_id)}", Fn, errors.FnNotFound)
            return _whole(fn, fn.id)

        async def in_ours() -> Fn:
            address = f"/v1/runner/fns/{_part(fn_id)}"
            fn = await self._look_up(address, Fn, errors.FnNotFound, ours=True)
            return _whole(fn, fn.id)

        return await self._either(in_ours, in_fns_words)

    async def trigger(self, app_name: str, type_: str, source: str) -> TriggerTarget:
        async def in_fns_words() -> TriggerTarget:
            # Fn 0.3.484's API nodes do not look up triggers for runners.
            raise errors.TriggerNotFound

        async def in_ours() -> TriggerTarget:
            query = urlencode({"app": app_name, "type": type_, "source": source})
            address = f"/v1/runner/triggers?{query}"
            found = await self._look_up(address, on_wire.TriggerOnWire, errors.TriggerNotFound, ours=True)
            target = TriggerTarget(trigger=found.trigger, fn=found.fn, app=found.app)
            return _whole(target, found.trigger.id and found.fn.id and found.app.id)

        return await self._either(in_ours, in_fns_words)

    # -- the life of a queued call -------------------------------------------------------------

    async def enqueue(self, call: Call) -> str:
        async def in_ours() -> str:
            # A queue that is down or full is told at once: the client of the call decides whether to wait.
            answer = await self._post("/v1/runner/enqueue", call.wire(), final=(errors.QueueUnavailable,))
            return answer.decode(on_wire.Accepted).call_id or call.id

        async def in_fns_words() -> str:
            await compat.enqueue(self._transport, call)
            return call.id

        return await self._either(in_ours, in_fns_words)

    async def dequeue(
        self, node: str, limit: int, wait: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        async def in_ours() -> list[LeasedCall]:
            asked = {"max": limit, "wait": f"{wait:g}", "node": node}
            if without:
                asked["without"] = ",".join(sorted(without)[:MOST_WITHOUT])
            path = f"/v1/runner/dequeue?{urlencode(asked)}"
            answer = checked(await self._transport.send("GET", path, wait=wait, repeat=False), ours=True)
            return on_wire.leased_calls(answer.decode(on_wire.CallsOnWire).calls)

        async def in_fns_words() -> list[LeasedCall]:
            answer = await compat.dequeue(self._transport)
            return on_wire.leased_calls(checked(answer).decode(on_wire.CallsOnWire).calls)

        return await self._unclaimed.leased(self._either(in_ours, in_fns_words))

    async def start(self, leased: LeasedCall) -> None:
        if leased.lease is None:
            await compat.start(self._transport, leased.call)
            return
        await self._starts.start(leased)

    async def extend(self, keys: Sequence[LeaseKey]) -> list[str]:
        async def in_ours() -> list[str]:
            lost = []
            for some in on_wire.split(keys):
                answer = await self._post("/v1/runner/extend", {"leases": some})
                lost += answer.decode(on_wire.Lost).lost
            return lost

        if _with_leases(keys):
            lost = await in_ours()
            self._spoke_ours = True
            return lost
        return await self._either(in_ours, _nothing_lost) if keys else []

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        async def in_ours() -> None:
            for some in on_wire.split(keys):
                await self._post("/v1/runner/release", {"leases": some})

        async def in_fns_words() -> None:
            """Nothing can be given back: the reservation runs out."""

        if _with_leases(keys):
            await in_ours()
        elif keys:
            await self._either(in_ours, in_fns_words)

    async def finish(self, batch: Sequence[Finished]) -> list[str]:
        async def in_ours() -> list[str]:
            refused = []
            for some in on_wire.split(batch, lambda one: len(one.log) + len(one.body)):
                body = {"finished": [on_wire.finished_on_wire(one) for one in some]}
                refused += (await self._post("/v1/runner/finish", body)).decode(on_wire.Refused).refused
            return refused

        async def in_fns_words() -> list[str]:
            for one in batch:
                checked(await compat.finish(self._transport, one))
            return []

        if not batch:
            return []
        # Fn's node knows this path too, but not a batch: it would answer that there is no call in it.
        if await self._speaks_ours():
            return await in_ours()
        return await in_fns_words()

    async def heartbeat(self, report: RunnerReport) -> RunnerState:
        async def in_ours() -> RunnerState:
            answer = await self._post("/v1/runner/heartbeat", report)
            state = answer.decode(on_wire.State).state
            return RunnerState.DRAINING if state == RunnerState.DRAINING else RunnerState.ACTIVE

        async def in_fns_words() -> RunnerState:
            return RunnerState.ACTIVE

        return await self._either(in_ours, in_fns_words)

    # -- what is to be ready -------------------------------------------------------------------

    async def wanted(self, since: str) -> Wanted | None:
        if time.monotonic() < self._compat_until:
            return None
        path = f"/v1/runner/wanted?{urlencode({'since': since})}"
        try:
            return await self._look_up(path, Wanted, errors.NotFound, ours=True)
        except UnknownThere:
            # Not ``_either``: an older node of ours knows leases all the same.
            return None

    # -- how -----------------------------------------------------------------------------------

    async def _either(
        self, in_ours: Callable[[], Awaitable[T]], in_fns_words: Callable[[], Awaitable[T]]
    ) -> T:
        """*in_ours*, or *in_fns_words* when the API node turns out not to know our endpoints."""
        if time.monotonic() >= self._compat_until:
            try:
                answer = await in_ours()
                self._spoke_ours = True
                return answer
            except UnknownThere:
                log.info("the API node is an unmodified Fn: no leases and no heartbeats")
                self._compat_until = time.monotonic() + COMPAT_FOR
        return await in_fns_words()

    async def _speaks_ours(self) -> bool:
        """Whether the API node knows our endpoints; asked by an empty request that changes nothing."""

        async def ask() -> bool:
            await self._post("/v1/runner/extend", {"leases": []})
            return True

        async def no() -> bool:
            return False

        if self._spoke_ours:
            return True
        return await self._either(ask, no)

    async def _post(self, path: str, body: object, *, final: tuple[type[errors.FnError], ...] = ()) -> Answer:
        answer = await self._transport.send("POST", path, body=wire.encode(body), final=final)
        return checked(answer, ours=True)

    async def _look_up(
        self, path: str, type_: type[T], missing: type[errors.NotFound], *, ours: bool = False
    ) -> T:
        tag, value = self._remembered.get(path, ("", None))
        answer = await self._transport.send("GET", path, headers={"If-None-Match": tag} if tag else None)
        if answer.status == 304 and tag:
            self._remembered.move_to_end(path)
            known: T = value
            return known
        if answer.status == 404:
            self._remembered.pop(path, None)
            if answer.unknown_path and not ours:
                raise missing
        found = checked(answer, ours=ours).decode(type_)
        if tag := answer.headers.get("ETag", ""):
            self._remembered[path] = (tag, found)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return found


def _whole(value: T, key: str) -> T:
    """*value* when it came with its *key*; an answer of something else than an API node has none."""
    if not key:
        raise errors.APINodeUnavailable(detail="unreadable answer: what was looked up has no id")
    return value


def _with_leases(keys: Sequence[LeaseKey]) -> bool:
    """Whether a node of ours has given any of them: an Fn node that turns up among ours cannot renew it."""
    return any(key.token for key in keys)


async def _nothing_lost() -> list[str]:
    return []


def _part(text: str) -> str:
    return quote(text, safe="")
