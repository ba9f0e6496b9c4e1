"""Delivers callbacks in the background, on every API node.

A callback is leased from the outbox, and removed when it is delivered, given up, or void. Whatever happens
in between, a node that dies included, it comes up again when its lease runs out: at least once, never lost
before ``FN_CALLBACK_MAX_AGE_SECS``. Nothing here holds up a call.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from services.callbacks import counts
from services.callbacks.address import shown
from services.callbacks.lanes import PATIENCE, Lanes, NoRoom
from services.callbacks.posting import Answer, Outcome, Poster, open_poster
from services.callbacks.resolver import LookUp, ThreadLookUp
from services.callbacks.retries import last_straw, pause
from services.callbacks.settings import CallbackSettings
from services.stores import Stores
from shared_models.background import beside, ended
from shared_models.call_interfaces import Callback
from shared_models.errors import CallNotFound, CallsNotKept, FnError

log = logging.getLogger(__name__)

UNCONFIRMED = 3600.0
"""Seconds after which a callback is void whose call has not ended as it says."""
_LINE = 5
"""Callbacks that this node holds for each that it can send at once: some wait for their turn."""
_STORES_TAKE = 60.0
_MOST_REST = 30.0
_PARTING = 2.0
_COUNT_EVERY = 15.0


@asynccontextmanager
async def running_callbacks(
    stores: Stores, settings: CallbackSettings, *, look_up: LookUp | None = None
) -> AsyncIterator[None]:
    """Delivers what is in the outbox of *stores* while the block runs.

    Afterwards those under way get ``settings.parting`` seconds, and what is left is for other nodes.
    """
    look_up = look_up or ThreadLookUp(settings.concurrency)
    async with open_poster(settings, look_up, stores.clock) as poster:
        delivery = Delivery(stores, poster, settings)
        try:
            async with beside(delivery.run(), "callbacks"), beside(_count_forever(stores), "callbacks-count"):
                yield
        finally:
            await delivery.stop()


async def _count_forever(stores: Stores) -> None:
    while True:
        try:
            counts.waiting.set(await stores.outbox.count())
        except FnError:
            pass  # whoever takes callbacks tells of it
        except Exception:
            log.exception("counting callbacks failed, and is tried again")
        await asyncio.sleep(_COUNT_EVERY)


class Delivery:
    """Takes callbacks that are due and sees each to its end, many at once."""

    def __init__(self, stores: Stores, poster: Poster, settings: CallbackSettings) -> None:
        self._outbox = stores.outbox
        self._logstore = stores.logstore
        self._poster = poster
        self._settings = settings
        self._clock = stores.clock
        self._hosts = Lanes(settings.per_host)
        self._apps = Lanes(max(1, settings.concurrency // 2))
        self._all = Lanes(settings.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        # Three turns to wait for, two requests to stores and one to the receiver fit into it.
        self._ttl = 3 * PATIENCE + _STORES_TAKE + settings.timeout

    async def run(self) -> None:
        """Endless: what goes wrong is told, and tried again later."""
        rest = self._settings.poll
        while True:
            more = False
            try:
                more = await self._take()
                rest = self._settings.poll
            except FnError as exc:
                rest = min(_MOST_REST, 2 * rest)
                log.warning("callbacks are put off: %s", exc.explained)
            except Exception:
                rest = _MOST_REST
                log.exception("taking callbacks failed, and is tried again")
            if not more:
                await asyncio.sleep(rest * random.uniform(0.75, 1.25))

    async def stop(self) -> None:
        """Lets those under way end within a bound, and leaves the rest to others."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.parting)
        await ended(*self._tasks)

    async def _take(self) -> bool:
        """Begins with those that are due; whether there may be more."""
        room = self._settings.concurrency * _LINE - len(self._tasks)
        if room <= 0:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            return True
        limit = min(room, self._settings.concurrency)
        due = await self._outbox.due(limit, self._ttl)
        for callback in due:
            task = asyncio.create_task(self._see_to(callback), name=f"callback-{callback.call_id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(due) == limit

    async def _see_to(self, callback: Callback) -> None:
        try:
            await self._pass_on(callback)
        except FnError as exc:
            log.info("callback of call %s is put off: %s", callback.call_id, exc.explained)
        except asyncio.CancelledError:
            # The next node goes on at once; if it is not told, it does so when the lease runs out.
            with suppress(FnError, TimeoutError):
                async with asyncio.timeout(_PARTING):
                    await self._outbox.postpone(callback, 0.0)
            raise
        except Exception as exc:
            # Not its message, which might repeat the URL.
            where = "".join(traceback.format_tb(exc.__traceback__))
            log.error("callback of call %s: %s\n%s", callback.call_id, type(exc).__name__, where)
            with suppress(FnError):
                await self._settle(callback, Answer(Outcome.FAILED, type(exc).__name__))

    async def _pass_on(self, callback: Callback) -> None:
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._hosts.of(shown(callback.url)))
                await stack.enter_async_context(self._apps.of(callback.app_id))
                await stack.enter_async_context(self._all.of(""))
                if not await self._holds(callback):
                    return
                answer = await self._poster.post(callback)
        except NoRoom as exc:
            await self._outbox.postpone(callback, exc.delay, counted=False)
            return
        await self._settle(callback, answer)

    async def _holds(self, callback: Callback) -> bool:
        """Whether the call has ended as *callback* says; if not, what becomes of it is done here."""
        of = {"fn_id": callback.fn_id} if callback.fn_id else {"app_id": callback.app_id}
        try:
            record = await self._logstore.call(callback.call_id, **of)
        except (CallNotFound, CallsNotKept):
            return True
        except FnError as exc:
            log.info("callback of call %s is put off: %s", callback.call_id, exc.explained)
            await self._outbox.postpone(callback, random.uniform(5.0, 15.0), counted=False)
            return False
        # An unmodified Fn runner knows no attempts.
        same = record.status == callback.status and callback.attempt in (0, record.attempt)
        if record.final and same:
            return True
        age = self._age(callback)
        if record.final or age > UNCONFIRMED:
            log.info("callback of call %s is void: the call did not end so", callback.call_id)
            await self._outbox.remove([callback])
        else:
            # The record is written in a moment, unless a node died in between.
            log.debug("callback of call %s waits for the record of the call's end", callback.call_id)
            await self._outbox.postpone(callback, min(max(age, 1.0), 30.0), counted=False)
        return False

    async def _settle(self, callback: Callback, answer: Answer) -> None:
        if answer.outcome is Outcome.DELIVERED:
            counts.delivered.inc()
            log.debug("callback of call %s to %s: %s", callback.call_id, shown(callback.url), answer.said)
            await _insist(lambda: self._outbox.remove([callback]))
            return
        counts.failed_attempts.inc()
        if why := last_straw(callback.tries, self._age(callback), answer, self._settings):
            counts.given_up.inc()
            log.warning(
                "callback of call %s to %s is given up (tries: %d), %s: %s",
                callback.call_id, shown(callback.url), callback.tries, why, answer.said,
            )  # fmt: skip
            await _insist(lambda: self._outbox.remove([callback]))
            return
        delay = pause(callback.tries, answer, self._settings)
        log.info(
            "callback of call %s to %s failed (tries: %d): %s; the next is in %.0f s",
            callback.call_id, shown(callback.url), callback.tries, answer.said, delay,
        )  # fmt: skip
        await _insist(lambda: self._outbox.postpone(callback, delay))

    def _age(self, callback: Callback) -> float:
        return self._clock() - callback.created


async def _insist(work: Callable[[], Awaitable[None]]) -> None:
    """Tries *work* on a store a few times: in vain, a callback that was delivered is delivered again."""
    for rest in (0.2, 1.0, 5.0):
        try:
            return await work()
        except FnError:
            await asyncio.sleep(rest)
    await work()
