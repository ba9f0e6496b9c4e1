"""Which calls are accepted: everything that is refused is refused here, before the 202."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from services import metrics
from services.callbacks.address import refusal
from services.callbacks.settings import CallbackSettings
from services.capacity import Capacity
from services.depths import Depths
from services.stores import Stores
from shared_models import async_policy, errors, secrets, times
from shared_models.async_policy import AsyncSettings
from shared_models.batches import Batches
from shared_models.call import Call, Reason, Status
from shared_models.errors import FnError, Invalid
from shared_models.fn import Fn

log = logging.getLogger(__name__)

KEY_TTL = 24 * 3600.0
"""Seconds for which an idempotency key stands for its call."""
_TRIES = 5


class Admission:
    """Takes calls into record and queue, or says why not."""

    def __init__(
        self,
        stores: Stores,
        settings: AsyncSettings,
        callbacks: CallbackSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._datastore = stores.datastore
        self._logstore = stores.logstore
        self._queue = stores.queue
        self._keys = stores.idempotency_keys
        self._settings = settings
        self._callbacks = callbacks
        self._clock = clock
        self._functions = Batches(self._functions_of)
        self._depths = Depths(stores.queue)
        self._capacity = Capacity(stores.datastore)

    async def enqueue(self, call: Call) -> str:
        """See ``DataAccess.enqueue``. Record first, then message.

        Died before the record: not accepted, nothing is left. Died between: a record without a
        message, which a repetition completes and the janitor ends otherwise. Died after: accepted,
        and a repetition finds both.
        """
        await self._check(call)
        call = secrets.without(call)
        if call.idempotency_key:
            return await self._take_in_keyed(call)
        await self._refuse_if_full(call)
        return await self._take_in(call)

    async def _take_in_keyed(self, call: Call) -> str:
        fn_id, key = call.fn_id, call.idempotency_key
        for _ in range(_TRIES):
            call_id, known = await self._keys.claim(fn_id, key, call.id, KEY_TTL)
            if known:
                return call_id
            # Whoever claimed it first may have died before its call was accepted: this one completes it.
            first = msgspec.structs.replace(call, id=call_id)
            await self._refuse_if_full(first)
            try:
                await self._take_in(first)
            except errors.CallNeverAccepted:
                if call_id == call.id:
                    raise
                await self._keys.release(fn_id, key, call_id)
                continue
            try:
                await self._keys.accept(fn_id, key, call_id)
            except FnError as exc:
                # It is accepted all the same, and whoever repeats it finds its record.
                log.warning("call %s is queued, its key is not marked: %s", call_id, exc.explained)
            return call_id
        raise errors.StoreUnavailable("Many send this Fn-Idempotency-Key at once, try again")

    async def _refuse_if_full(self, call: Call) -> None:
        """Not when it is queued already: the answer to an earlier request may have been lost."""
        try:
            await self._depths.refuse_if_full(call, self._settings)
        except errors.QueueFull:
            try:
                await self._logstore.call(call.id, app_id=call.app_id)
            except errors.CallNotFound:
                known = False
            except errors.CallsNotKept:
                known = call.id in await self._queue.holds([call.id])
            else:
                known = True
            if not known:
                raise

    async def _take_in(self, call: Call) -> str:
        created_at = times.to_text(self._clock()) if call.created_at == times.NEVER else call.created_at
        call = msgspec.structs.replace(
            call, status=Status.QUEUED, attempt=0, node="", error="", reason="", created_at=created_at
        )
        fresh = await self._logstore.insert_call(call)
        if not fresh and not await self._may_lack_message(call):
            return call.id
        try:
            pushed = await self._queue.push(call)
        except FnError:
            # Only what this very request recorded: an earlier one may have been answered with 202.
            if fresh:
                await self._withdraw(call)
            raise
        if not fresh:
            # The one that recorded it may have withdrawn it since.
            await self._logstore.insert_call(call)
        if pushed:
            self._depths.pushed(call.fn_id)
            metrics.accepted.inc()
        return call.id

    async def _withdraw(self, call: Call) -> None:
        """Forgets a record whose push failed, unless another request has queued the call meanwhile.

        That one records it again after its push, and this one after its look: the later sees the other. While
        the queue is away, all that is refused must not look like calls that were lost.
        """
        with contextlib.suppress(FnError):
            await self._logstore.remove_call(call.id)
            if await self._queue.holds([call.id]):
                await self._logstore.insert_call(call)

    async def _check(self, call: Call) -> None:
        if call.callback_url and (reason := refusal(call.callback_url, self._callbacks)):
            raise Invalid(f"Fn-Callback-Url: {reason}")
        if not call.fn_id:
            await self._datastore.app(call.app_id)
            memory = call.memory
        else:
            fn = await self._functions.ask(call.fn_id)
            _check_function(call, fn)
            memory = fn.memory
        await self._capacity.refuse_if_too_large(memory, call.cpus)

    async def _functions_of(self, fn_ids: Sequence[str]) -> list[Fn | Exception]:
        """Each is read once, after the last call of the batch had come: none is judged by an older one."""
        distinct = list(dict.fromkeys(fn_ids))
        found = dict(zip(distinct, await asyncio.gather(*map(self._function, distinct)), strict=True))
        return [found[fn_id] for fn_id in fn_ids]

    async def _function(self, fn_id: str) -> Fn | Exception:
        try:
            return await self._datastore.fn(fn_id)
        except FnError as exc:
            return exc

    async def _may_lack_message(self, call: Call) -> bool:
        """Whether *call*, whose id is known, may still lack its message.

        A push in vain does no harm: the queue knows the id, or the record is final by then and the
        message is dropped when it comes up. Raises CallExists for another call of this id, and
        CallNeverAccepted for one that was ended because nobody had queued it.
        """
        for _ in range(_TRIES):
            try:
                known = await self._logstore.call(call.id, app_id=call.app_id)
                break
            except errors.CallNotFound:
                # It was withdrawn in between, and may be recorded again by now; or it is of another app.
                if await self._logstore.insert_call(call):
                    return True
        else:
            raise errors.CallExists
        if (known.fn_id, known.app_id, known.type) != (call.fn_id, call.app_id, call.type):
            raise errors.CallExists
        if known.reason == Reason.LOST and not known.attempt:
            raise errors.CallNeverAccepted
        return known.status == Status.QUEUED


def _check_function(call: Call, fn: Fn) -> None:
    if call.app_id != fn.app_id:
        raise Invalid(f"app_id: function {fn.id} is of app {fn.app_id}, not of {call.app_id!r:.40}")
    if call.image != fn.image:
        raise Invalid(f"image: function {fn.id} has image {fn.image!r}, not {call.image!r:.300}")
    async_policy.check(call.annotations)
