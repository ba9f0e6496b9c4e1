"""Look-ups from memory: fresh for five seconds, refreshed ahead, stale while the API node is away."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from shared_models import errors
from shared_models.app import App
from shared_models.call import Call, Finished, LeasedCall, LeaseKey
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from shared_models.route import Route
from shared_models.runner import RunnerReport, RunnerState
from shared_models.trigger import TriggerTarget
from shared_models.wanted import Wanted

log = logging.getLogger(__name__)

T = TypeVar("T")
Key = tuple[str, ...]

FRESH = 5.0
"""Seconds for which an answer is used as it is: a change is seen after that long at the latest."""
AHEAD = 2.5
"""Age at which a look-up that is asked for is refreshed in the background."""
MISSING = 1.0
"""Seconds for which "not found" is remembered."""
PATIENCE = 1.0
"""Seconds to wait for the API node when something older is at hand."""
SIZE = 10_000


class _Entry:
    __slots__ = ("away", "error", "refresh", "seen", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.error: errors.NotFound | None = None
        self.seen = float("-inf")
        self.refresh: asyncio.Task[None] | None = None
        self.away: errors.FnError | None = None
        """Why the last refresh got no answer: what is known is served without waiting again."""


class CachedDataAccess(DataAccess):
    """Wraps a DataAccess; mutations pass through. One request per key at a time.

    *stale* and *missing*: seconds for which an old value serves while the API node is away, and for
    which "not found" is remembered.
    """

    def __init__(self, inner: DataAccess, stale: float, missing: float = MISSING) -> None:
        self._inner = inner
        self._stale = stale
        self._missing = missing
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._loop = asyncio.get_running_loop()

    async def app_id(self, name: str) -> str:
        # Asked for every time, as Fn's runners do: an app that is deleted, or made anew, is another app.
        return await self._look_up(("app_id", name), lambda: self._inner.app_id(name), fresh=0.0)

    async def app(self, app_id: str) -> App:
        return await self._look_up(("app", app_id), lambda: self._inner.app(app_id))

    async def route(self, app_id: str, path: str) -> Route:
        return await self._look_up(("route", app_id, path), lambda: self._inner.route(app_id, path))

    async def fn(self, fn_id: str) -> Fn:
        return await self._look_up(("fn", fn_id), lambda: self._inner.fn(fn_id))

    async def trigger(self, app_name: str, type_: str, source: str) -> TriggerTarget:
        key = ("trigger", app_name, type_, source)
        return await self._look_up(key, lambda: self._inner.trigger(app_name, type_, source))

    def known_fn(self, fn_id: str) -> Fn | None:
        """As ``fn``, at once; None when it must be looked up."""
        return self._known(("fn", fn_id), self._inner.fn)  # type: ignore[no-any-return]

    def known_app(self, app_id: str) -> App | None:
        """As ``app``, at once; None when it must be looked up."""
        return self._known(("app", app_id), self._inner.app)  # type: ignore[no-any-return]

    def _known(self, key: Key, ask: Callable[[str], Awaitable[Any]]) -> Any:
        entry = self._entries.get(key)
        if entry is None or entry.value is None or (age := self._loop.time() - entry.seen) >= FRESH:
            return None
        if age > AHEAD and entry.refresh is None:
            self._refresh(key, entry, lambda: ask(key[1]))
        return entry.value

    async def _look_up(self, key: Key, ask: Callable[[], Awaitable[T]], fresh: float = FRESH) -> T:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            if len(self._entries) > SIZE:
                self._entries.popitem(last=False)
        age = self._loop.time() - entry.seen
        if entry.error:
            if age < self._missing:
                raise entry.error
        elif age < fresh:
            if age > AHEAD:
                self._refresh(key, entry, ask)
            return entry.value  # type: ignore[no-any-return]
        task = self._refresh(key, entry, ask)
        known = entry.value is not None and age <= self._stale
        if known and entry.away:
            return entry.value  # type: ignore[no-any-return]
        done, _ = await asyncio.wait({task}, timeout=PATIENCE if known else None)
        if known and (entry.away or not done):
            entry.away = entry.away or errors.APINodeUnavailable()
            return entry.value  # type: ignore[no-any-return]
        if failure := entry.error or entry.away:
            raise failure
        return entry.value  # type: ignore[no-any-return]

    def outdated(self, *key: str) -> None:
        """The look-up *key* (``"fn"``, id) is known to have changed: the next one asks."""
        entry = self._entries.get(key)
        if entry and not entry.error:
            entry.seen = min(entry.seen, self._loop.time() - FRESH)

    def _refresh(self, key: Key, entry: _Entry, ask: Callable[[], Awaitable[T]]) -> asyncio.Task[None]:
        if entry.refresh is None:
            entry.refresh = asyncio.create_task(self._ask(key, entry, ask), name=f"look up {key[0]}")
        return entry.refresh

    async def _ask(self, key: Key, entry: _Entry, ask: Callable[[], Awaitable[T]]) -> None:
        try:
            value: T | None = await ask()
        except errors.NotFound as exc:
            entry.value, entry.error = None, exc
        except errors.FnError as exc:
            if not entry.away and entry.value is not None:
                log.warning("look-up of %s failed, what is known is served: %s", " ".join(key), exc)
            entry.away = exc
            return
        except Exception:
            log.exception("look-up of %s", " ".join(key))
            entry.away = errors.FnError()
            return
        else:
            # The same object when nothing changed: what was built from it need not be built again.
            entry.value = entry.value if entry.value == value and _comparable(value) else value
            entry.error = None
        finally:
            entry.refresh = None
        entry.away = None
        entry.seen = self._loop.time()

    # -- the rest passes through -----------------------------------------------------------------

    async def enqueue(self, call: Call) -> str:
        return await self._inner.enqueue(call)

    async def dequeue(
        self, node: str, limit: int, wait: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        return await self._inner.dequeue(node, limit, wait, without)

    async def start(self, leased: LeasedCall) -> None:
        await self._inner.start(leased)

    async def extend(self, keys: Sequence[LeaseKey]) -> list[str]:
        return await self._inner.extend(keys)

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        await self._inner.release(keys)

    async def finish(self, batch: Sequence[Finished]) -> list[str]:
        return await self._inner.finish(batch)

    async def wanted(self, since: str) -> Wanted | None:
        return await self._inner.wanted(since)

    async def heartbeat(self, report: RunnerReport) -> RunnerState:
        return await self._inner.heartbeat(report)


def _comparable(value: object) -> bool:
    """Whether ``==`` sees all of it: raw annotation values do not compare by content."""
    if isinstance(value, App | Fn):
        return not value.annotations
    return isinstance(value, str)
