"""Which calls are listed, in which order: keys are sought by id, and records are fetched side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress

from services.logstore import s3_keys as keys
from services.logstore.s3_objects import Objects
from services.logstore.s3_records import Live, Records, Unreadable, each
from shared_models import ids, times
from shared_models.call import Call, Status
from shared_models.interfaces import CallFilter

SLACK = 60.0
"""Seconds by which the time in an id and ``created_at`` may differ."""
_IN_FLIGHT = (Status.QUEUED, Status.RUNNING)
_BEHIND = "0"
"""Sorts right behind everything that a mirrored id and a slash begin."""


class Pages:
    """Reads pages of calls."""

    def __init__(self, objects: Objects, records: Records) -> None:
        self._objects = objects
        self._records = records

    async def calls(self, page: CallFilter, *, ended: bool = False) -> list[Call]:
        """A page, newest first, never shorter than it could be; *ended*: only calls that have ended."""
        if not page.fn_id and not page.app_id:
            return await self._of_anybody(page)
        if page.fn_id:
            prefix = keys.of_fn(page.fn_id)
        elif page.path:
            prefix = keys.of_path(page.app_id, page.path)
        else:
            prefix = keys.of_app(page.app_id)
        return await self._below(prefix, page, ended=ended)

    async def app_of(self, fn_id: str, call_id: str) -> str:
        """The app of a function's call; empty when the function has no such call."""
        prefix = f"{keys.of_fn(fn_id)}{ids.descending(call_id)}/"
        found = await self._objects.list(prefix, limit=1)
        return found.keys[0].removeprefix(prefix) if found.keys else ""

    async def in_flight(self) -> AsyncIterator[list[Live]]:
        """Records that have not ended, by id, page by page."""
        async for some in self._objects.keys("q/"):
            found = await each(some, lambda key: self._live(key.removeprefix("q/")))
            yield [live for live in found if live is not None]

    async def older(self, older_than: str, limit: int) -> list[Call]:
        """Ended calls of any app whose ids are older than *older_than* (wire text)."""
        page = CallFilter(before=ids.first_of(times.seconds_of(older_than)), limit=limit)
        found: list[Call] = []
        async for app in self._folders("c/"):
            found += await self._below(app, page, ended=True, most=limit - len(found))
            if len(found) >= limit:
                break
        return found

    async def older_logs(self, older_than: str, limit: int) -> list[str]:
        """The keys of at most *limit* logs of calls whose ids are older than *older_than* (wire text)."""
        bound = ids.first_of(times.seconds_of(older_than))
        found: list[str] = []
        async for app in self._folders("l/"):
            listed = await self._objects.list(app, limit=limit - len(found))
            # Logs are not mirrored: the oldest come first.
            found += [key for key in listed.keys if key.removeprefix(app) < bound]
            if len(found) >= limit:
                break
        return found

    async def _of_anybody(self, page: CallFilter) -> list[Call]:
        if page.status in _IN_FLIGHT:
            return await self._in_flight_before(page)
        found: list[Call] = []
        async for app in self._folders("c/"):
            found += await self._below(app, page)
        found.sort(key=lambda call: call.id, reverse=True)
        return found[: page.limit]

    async def _in_flight_before(self, page: CallFilter) -> list[Call]:
        # Their ids are not mirrored. Names are cheap, a thousand at once: only what is wanted is fetched.
        named = [key.removeprefix("q/") async for some in self._objects.keys("q/") for key in some]
        wanted = [call_id for call_id in reversed(named) if not page.before or call_id < page.before]
        found: list[Call] = []
        for start in range(0, len(wanted), page.limit):
            some = await each(wanted[start : start + page.limit], self._live)
            found += [live.call for live in some if live is not None and _fits(live.call, page)]
            if len(found) >= page.limit:
                break
        return found[: page.limit]

    async def _folders(self, prefix: str) -> AsyncIterator[str]:
        after = ""
        while True:
            found = await self._objects.list(prefix, after=after, folders=True)
            for folder in found.folders:
                yield folder
            if not found.last:
                return
            # A folder is passed by what sorts behind all that is in it.
            after = found.last.rstrip("/") + _BEHIND

    async def _below(
        self, prefix: str, page: CallFilter, *, ended: bool = False, most: int = 0
    ) -> list[Call]:
        most = most or page.limit
        below = [page.before] if page.before else []
        if page.to_time:
            below.append(ids.first_of(times.seconds_of(page.to_time) + SLACK))
        after = f"{prefix}{ids.descending(min(below))}{_BEHIND}" if below else ""
        oldest = ids.first_of(times.seconds_of(page.from_time) - SLACK) if page.from_time else ""
        app_id = page.app_id or (prefix.split("/")[1] if prefix.startswith("c/") else "")
        found: list[Call] = []
        # A few more than are wanted, where some may not fit.
        more = 8 if ended or page.status or page.from_time or page.to_time else 0
        async for some in self._objects.keys(prefix, after=after, limit=most + more):
            named = [keys.call_of(key, app_id) for key in some]
            new = [one for one in named if one[1] >= oldest]
            found += await self._that_fit(new, page, ended)
            if len(found) >= most or len(new) < len(named):
                break
        return found[:most]

    async def _live(self, call_id: str) -> Live | None:
        with suppress(Unreadable):
            return (await self._records.live(call_id))[0]
        return None

    async def _call(self, app_id: str, call_id: str) -> Call | None:
        with suppress(Unreadable):
            return await self._records.find(app_id, call_id)
        return None

    async def _that_fit(
        self, named: Sequence[tuple[str, str]], page: CallFilter, ended: bool
    ) -> Iterable[Call]:
        calls = await each(named, lambda one: self._call(*one))
        return [call for call in calls if call and _fits(call, page) and (call.final or not ended)]


def _fits(call: Call, page: CallFilter) -> bool:
    return (
        page.app_id in ("", call.app_id)
        and page.fn_id in ("", call.fn_id)
        and page.path in ("", call.path)
        and page.status in ("", call.status)
        and (not page.from_time or call.created_at > page.from_time)
        and (not page.to_time or call.created_at < page.to_time)
        and (not page.before or call.id < page.before)
    )
