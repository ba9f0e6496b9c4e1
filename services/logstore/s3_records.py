"""Records of calls as objects: those that have ended, those in flight, and how one becomes the other.

A call in flight has its record twice. The one in ``q/`` decides: it is changed on condition that nobody
else has changed it meanwhile. The one in ``c/``, which listings find, is a copy that may be old until the
call has ended. Ending goes log, ``q/``, ``c/``, and ``q/`` is deleted last: where there is none, ``c/`` is
final, or the call was never recorded. Whoever meets a final ``q/`` copies it and deletes it, since its
node may have died before it could.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from services.logstore import s3_keys as keys
from services.logstore.results import REASON
from services.logstore.s3_objects import AT_ONCE, Object, Objects
from shared_models import wire
from shared_models.call import Call, CallOnWire
from shared_models.errors import Invalid, StoreUnavailable

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Unreadable(StoreUnavailable):
    """An object is not what its key says. Listings pass it over; *etag* names this version of it."""

    etag = ""


REMOVED = "removed"
"""The token of a call that is being withdrawn: nobody has it, so nobody may claim the call."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A call in flight; ``token`` is that of the lease which may speak for it.

    ``nonce`` tells one's own write, whose answer was lost, from the same one of somebody else.
    """

    call: Call
    nonce: str = ""
    token: str = ""
    recorded_at: str = ""

    @property
    def row(self) -> dict[str, Any]:
        """What ``results`` judges by."""
        call = self.call
        names = ("status", "error", "completed_at", "fn_id", "app_id", "attempt")
        return {**{name: getattr(call, name) for name in names}, "token": self.token}


_live = msgspec.json.Decoder(Live)
_call = msgspec.json.Decoder(CallOnWire)


class Records:
    """Reads and changes records. Safe concurrently, from any node."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def live(self, call_id: str) -> tuple[Live | None, str]:
        """The record in flight and the tag of this version of it; None when there is none."""
        key = keys.live(call_id)
        found = await self._objects.get(key)
        return (_read(_live.decode, key, found), found.etag) if found else (None, "")

    async def ended(self, app_id: str, call_id: str) -> Call | None:
        """The final record of a call that is not in flight."""
        key = keys.record(app_id, call_id)
        found = await self._objects.get(key)
        call = _recorded(key, found) if found else None
        return call if call and call.final else None

    async def is_over(self, call: Call) -> bool:
        """Whether a call that is not in flight has ended, be it with a record that cannot be read."""
        try:
            return await self.ended(call.app_id, call.id) is not None
        except Unreadable:
            return True

    async def find(self, app_id: str, call_id: str) -> Call | None:
        """The record in whichever state; None when there is none."""
        if call := await self.ended(app_id, call_id):
            return call
        live, _ = await self.live(call_id)
        if live is not None:
            return live.call if live.call.app_id == app_id else None
        # It may have ended between the two looks.
        return await self.ended(app_id, call_id)

    async def create(self, live: Live) -> bool:
        """Records a call in flight, with all by which it is found; False when there is one already."""
        if not await self._decide(live, create=True):
            return False
        call = live.call
        # Never over a copy that is there: it may be the final one, if all this took long.
        if await self._write(call, create=True) or not await self.ended(call.app_id, call.id):
            return True
        await self._objects.delete([keys.live(call.id)])
        return False

    async def change(self, live: Live, etag: str) -> bool:
        """Changes a record in flight, unless it is another version than *etag* by now."""
        return await self._decide(live, match=etag)

    async def _decide(self, live: Live, *, match: str = "", create: bool = False) -> bool:
        key = keys.live(live.call.id)
        body = msgspec.json.encode(msgspec.structs.replace(live, nonce=secrets.token_hex(8)))
        if await self._objects.put(key, body, match=match, create=create):
            return True
        # The first answer may have been lost, and the SDK have asked again.
        found = await self._objects.get(key)
        return found is not None and found.body == body

    async def complete(self, live: Live) -> None:
        """Writes all by which a call in flight is found, whose node may have died before it could."""
        if live.call.final:
            await self.settle(live)
        elif live.token != REMOVED:
            await self._write(live.call, create=True)

    async def settle(self, live: Live) -> None:
        """Copies a final record to where it stays, and is no longer in flight."""
        await self._write(live.call)
        await self._objects.delete([keys.live(live.call.id)])

    async def insert(self, call: Call) -> bool:
        """Records a call that was never in flight; False when there is a record of it already."""
        if await self._write(call, create=True):
            return True
        key = keys.record(call.app_id, call.id)
        found = await self._objects.get(key)
        if found is None or found.body == wire.encode(call.whole()):
            return found is not None
        # Of a call that was withdrawn by a node that died before it could remove the copy?
        left = not _recorded(key, found).final
        return left and await self._write(call, match=found.etag)

    async def forget(self, calls: Sequence[Call]) -> None:
        """Removes everything of *calls*; in flight first, or it would be copied once more."""
        await self._objects.delete([keys.live(call.id) for call in calls])
        await self._objects.delete([key for call in calls for key in keys.of(call)])

    async def _write(self, call: Call, *, create: bool = False, match: str = "") -> bool:
        await each(keys.markers(call), lambda key: self._objects.put(key, b""))
        key, body = keys.record(call.app_id, call.id), wire.encode(call.whole())
        return await self._objects.put(key, body, create=create, match=match, notes=_notes(call))


# Beside the record, which is as Fn writes it.
def _notes(call: Call) -> dict[str, str]:
    return {
        "attempt": str(call.attempt),
        "node": urllib.parse.quote(call.node),
        "reason": urllib.parse.quote(call.reason[:REASON]),
    }


def _noted(notes: Mapping[str, str]) -> dict[str, Any]:
    attempt = notes.get("attempt", "")
    return {
        "attempt": int(attempt) if attempt.isdecimal() else 0,
        "node": urllib.parse.unquote(notes.get("node", "")),
        "reason": urllib.parse.unquote(notes.get("reason", "")),
    }


def _recorded(key: str, found: Object) -> Call:
    call = _read(lambda body: _call.decode(body).call(), key, found)
    return msgspec.structs.replace(call, **_noted(found.notes))


def _read(decode: Callable[[bytes], Result], key: str, found: Object) -> Result:
    try:
        return decode(found.body)
    except (msgspec.DecodeError, Invalid) as exc:
        log.error("the log store has an object that is no record of a call: %s: %s", key, exc)
        unreadable = Unreadable(detail=f"the object {key} is no record of a call")
        unreadable.etag = found.etag
        raise unreadable from exc


async def each(items: Iterable[Item], work: Callable[[Item], Awaitable[Result]]) -> list[Result]:
    """The results of *work* on all *items*, in order; so many are under way together."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: Item) -> Result:
        async with gate:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
