"""The log store on S3. Its contract is ``shared_models.interfaces.LogStore``.

There are no transactions: each call is decided by itself, by a write on condition (``s3_records``).
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from services import urls
from services.logstore import attempts, kept
from services.logstore import s3_keys as keys
from services.logstore.results import OUTCOME, Start, judge, judge_start
from services.logstore.s3_objects import CHUNK, Objects
from services.logstore.s3_opening import open_objects
from services.logstore.s3_pages import Pages
from services.logstore.s3_records import REMOVED, Live, Records, Unreadable, each
from services.logstore.s3_settings import S3Settings
from shared_models import errors, times
from shared_models.call import Call, Finished, LeasedCall, LeaseKey, Status
from shared_models.interfaces import CallFilter, KeptResult, LogStore, Purge

VARIABLE = "FN_LOGSTORE_URL"


@asynccontextmanager
async def open_s3_logstore(
    address: urls.Address, clock: Callable[[], float] = time.time
) -> AsyncIterator[LogStore]:
    """The log store in the bucket at ``s3://KEY:SECRET@HOST/REGION/BUCKET``.

    Parameters: ``ssl``, ``style`` (path or virtual), ``prefix`` of all keys, ``session_token``, ``ca`` (a
    file), ``pool_size``, ``connect_timeout`` and ``timeout`` in seconds: that of a request with its
    repetitions, of which there are two, and of the next piece of a log. Without a host it is AWS, without
    a login the SDK finds the credentials. Raises ValueError for bad parameters, StoreUnavailable
    with one clear line when the bucket cannot be used.
    """
    async with open_objects(S3Settings.of(address, VARIABLE)) as objects:
        yield S3LogStore(objects, clock)


class S3LogStore(LogStore):
    """Calls of one batch are worked on at the same time."""

    whole = True

    def __init__(self, objects: Objects, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._records = Records(objects)
        self._pages = Pages(objects, self._records)
        self._clock = clock

    def _now(self) -> str:
        return times.to_text(self._clock())

    # -- calls in flight -----------------------------------------------------------------------

    async def insert_call(self, call: Call) -> bool:
        new = msgspec.structs.replace(
            call, status=Status.QUEUED, attempt=0, node="", error="", reason="", payload=b""
        )
        live, _ = await self._records.live(call.id)
        if live is not None:
            await self._records.complete(live)
            return False
        if await self._records.ended(call.app_id, call.id):
            return False
        return await self._records.create(Live(call=new, recorded_at=self._now()))

    async def remove_call(self, call_id: str) -> None:
        live, etag = await self._records.live(call_id)
        if live is None or live.call.status != Status.QUEUED or live.call.attempt:
            return
        # Nobody may claim it from now on: to whoever looks it has another holder.
        if await self._records.change(msgspec.structs.replace(live, token=REMOVED), etag):
            await self._records.forget([live.call])

    async def claim(self, leased: Sequence[LeasedCall], node: str) -> list[str]:
        refused = await each(leased, lambda one: self._claim(one, node))
        return [one.call.id for one, no in zip(leased, refused, strict=True) if no]

    async def _claim(self, one: LeasedCall, node: str) -> bool:
        """Whether the call must not run."""
        attempt = one.lease.attempt if one.lease else 1
        given = {"status": Status.QUEUED, "attempt": attempt, "node": node, "started_at": times.NEVER}
        fresh = msgspec.structs.replace(one.call, payload=b"", error="", reason="", **given)
        while True:
            new = Live(call=fresh, token=one.key.token, recorded_at=self._now())
            try:
                live, etag = await self._records.live(one.call.id)
            except Unreadable as broken:
                # It would stand in the way of all calls behind it: made anew, from what the queue has.
                if await self._records.change(new, broken.etag):
                    return False
                continue
            if live is None:
                if await self._records.is_over(one.call):
                    return True
                if await self._records.create(new):
                    return False
            elif live.call.final:
                await self._records.settle(live)
                return True
            elif live.call.attempt > attempt:
                # A claim that was held up until a later lease had claimed must not take it back.
                return False
            else:
                call = msgspec.structs.replace(live.call, **given)
                new = msgspec.structs.replace(live, call=call, token=one.key.token)
                if await self._records.change(new, etag):
                    return False

    async def unclaim(self, given: Sequence[LeaseKey], *, counted: bool = False, log: bytes = b"") -> None:
        await each(given, partial(self._unclaim, uncounted=int(not counted), log=log))

    async def _unclaim(self, key: LeaseKey, uncounted: int, log: bytes) -> None:
        while True:
            live, etag = await self._records.live(key.id)
            if live is None or not key.token or live.token != key.token or live.call.final:
                return
            call = msgspec.structs.replace(
                live.call,
                status=Status.QUEUED,
                attempt=max(0, live.call.attempt - uncounted),
                node="",
                started_at=times.NEVER,
            )
            if log and not uncounted and 1 <= call.attempt <= attempts.MOST:
                # By a name of its own: the next attempt cannot write over it.
                await self._objects.put(keys.log(call.app_id, call.id, call.attempt), log)
            if await self._records.change(msgspec.structs.replace(live, call=call, token=""), etag):
                return

    async def start_call(self, key: LeaseKey, started_at: str) -> None:
        while True:
            live, etag = await self._records.live(key.id)
            verdict = judge_start(key, live.row if live else None)
            if live is None or verdict is Start.REFUSED:
                raise errors.LeaseLost
            if verdict is Start.REPEATED:
                return
            call = msgspec.structs.replace(live.call, status=Status.RUNNING, started_at=started_at)
            if await self._records.change(msgspec.structs.replace(live, call=call, token=key.token), etag):
                return

    async def unqueued(self, older_than: str, limit: int) -> list[str]:
        found: list[Live] = []
        async for some in self._pages.in_flight():
            found += [
                live for live in some if live.call.status == Status.QUEUED and live.recorded_at < older_than
            ]
        found.sort(key=lambda live: (live.recorded_at, live.call.id))
        return [live.call.id for live in found[:limit]]

    # -- results -------------------------------------------------------------------------------

    async def finish_calls(self, batch: Sequence[Finished]) -> list[str]:
        by_call: dict[str, list[Finished]] = {}
        for one in batch:
            by_call.setdefault(one.call.id, []).append(one)
        refused = await each(by_call.values(), self._finish_in_turn)
        return [call_id for some in refused for call_id in some]

    async def _finish_in_turn(self, results: Sequence[Finished]) -> list[str]:
        return [one.call.id for one in results if not await self._finish(one)]

    async def _finish(self, one: Finished) -> bool:
        """Whether the result is accepted."""
        call = one.call
        while True:
            try:
                live, etag = await self._records.live(call.id)
                ended = await self._records.ended(call.app_id, call.id) if live is None else None
            except Unreadable:
                return False  # nobody can say whose it is, and the results beside it must not wait for that
            row = live.row if live else Live(call=ended).row if ended else None
            verdict = judge([one], {call.id: row} if row else {})
            if verdict.new:
                await self._put_log(one)
                if await self._records.insert(call):
                    return True
            elif verdict.ended:
                assert live is not None
                await self._put_log(one)
                if kept.is_kept(one):
                    await self._put_result(one, live.call.attempt)
                result = {name: getattr(call, name) for name in OUTCOME}
                final = msgspec.structs.replace(live, call=msgspec.structs.replace(live.call, **result))
                if await self._records.change(final, etag):
                    await self._records.settle(final)
                    return True
            else:
                if live is not None and live.call.final:
                    await self._records.settle(live)
                return not verdict.refused

    async def _put_log(self, one: Finished) -> None:
        # An empty one too, as Fn does: an attempt that lost the call meanwhile may have left another.
        await self._objects.put(keys.log(one.call.app_id, one.call.id), one.log)

    async def _put_result(self, one: Finished, attempt: int) -> None:
        # By the name of its attempt: one that loses the call meanwhile leaves nothing to the next.
        notes = {"type": urllib.parse.quote(kept.type_of(one)), "cut": str(int(kept.was_cut(one)))}
        await self._objects.put(keys.result(one.call, attempt), kept.body_of(one), notes=notes)

    # -- reading -------------------------------------------------------------------------------

    async def call(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> Call:
        if not app_id and fn_id:
            app_id = await self._pages.app_of(fn_id, call_id)
        if app_id:
            call = await self._records.find(app_id, call_id)
        elif fn_id:
            call = None
        else:
            live, _ = await self._records.live(call_id)
            call = live.call if live else None
        if call is None or (fn_id and call.fn_id != fn_id):
            raise errors.CallNotFound
        return call

    async def calls(self, page: CallFilter) -> list[Call]:
        return await self._pages.calls(page)

    async def log(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> AsyncIterator[bytes]:
        try:
            call = await self.call(call_id, fn_id=fn_id, app_id=app_id)
        except errors.CallNotFound:
            raise errors.CallLogNotFound from None
        if not call.final:
            raise errors.CallLogNotFound
        return self._log_pieces(call)

    async def _log_pieces(self, call: Call) -> AsyncIterator[bytes]:
        named = {number: keys.log(call.app_id, call.id, number) for number in keys.attempts_of(call)}
        last, shown, before = keys.log(call.app_id, call.id), False, b""
        for number, key in [*named.items(), (call.attempt, last)]:
            begun = False
            async for piece in self._objects.stream(key):
                shown = shown or key != last
                if shown and not begun:
                    yield attempts.line(number, before)
                begun, before = True, piece
                yield piece

    async def result(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> KeptResult:
        try:
            call = await self.call(call_id, fn_id=fn_id, app_id=app_id)
        except errors.CallNotFound:
            raise errors.CallResultNotFound from None
        found = await self._objects.get(keys.result(call, call.attempt)) if call.final else None
        if found is None:
            raise errors.CallResultNotFound
        given = urllib.parse.unquote(found.notes.get("type", ""))
        cut = found.notes.get("cut") == "1"
        return KeptResult(content_type=given, truncated=cut, body=_pieces(found.body))

    # -- removal -------------------------------------------------------------------------------

    async def remove_calls(self, purge: Purge, limit: int) -> int:
        if not purge.fn_id and not purge.app_id:
            return 0
        page = CallFilter(
            fn_id=purge.fn_id,
            app_id=purge.app_id,
            from_time=purge.from_time,
            to_time=purge.to_time,
            limit=limit,
        )
        ended = await self._pages.calls(page, ended=True)
        await self._records.forget(ended)
        return len(ended)

    async def expire_calls(self, older_than: str, limit: int) -> int:
        ended = await self._pages.older(older_than, limit)
        await self._records.forget(ended)
        return len(ended)

    async def expire_logs(self, older_than: str, limit: int) -> int:
        found = await self._pages.older_logs(older_than, limit)
        if found:
            await self._objects.delete(found)
        return len(found)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), CHUNK):
        yield body[start : start + CHUNK]
