"""Those outside of the nodes: clients that make calls, operators, and runners that speak too late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from services import call_control
from services.call_control import StoresCallControl
from shared_models import errors
from shared_models.async_policy import DEFAULTS
from shared_models.call import Call, CallType, Finished, LeasedCall, Reason, Status
from shared_models.interfaces import DataAccess
from tests.model.api import ApiNode
from tests.model.history import Outcome, Plan, Violation
from tests.model.network import Client
from tests.model.world import FUNCTIONS, World


class People:
    """They see the world through its API nodes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._history = world.history
        self._front = Client("front", world.network)

    # -- calls ---------------------------------------------------------------------------------

    def plan(
        self,
        fn: str,
        *,
        priority: int = 0,
        delay: int = 0,
        outcomes: tuple[Outcome, ...] = (Outcome.SUCCESS,),
        duration: float = 1.0,
        key: str = "",
        callback: bool = False,
        shy: bool = False,
    ) -> Call:
        """A new call, not yet submitted."""
        of = self._world.fns[fn]
        annotations = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in FUNCTIONS[fn].items()}
        call = Call(
            id=self._world.ids(),
            fn_id=of.id,
            app_id=of.app_id,
            image=of.image,
            type=CallType.DETACHED,
            priority=priority,
            delay=delay,
            annotations=annotations,
            idempotency_key=key,
            callback_url="http://93.184.215.14/" if callback else "",
            payload=b"payload",
        )
        self._history.plans[call.id] = Plan(call, f"call{len(self._history.plans)}", outcomes, duration, shy)
        return call

    def submit(self, call: Call) -> None:
        """A client makes a detached call; it may not hear what comes of it."""

        async def submit() -> None:
            try:
                await self._front.enqueue(call)
            except errors.FnError as exc:
                self._note(f"not accepted: {type(exc).__name__}", call.id)

        self._world.begin(submit())

    # -- operators -----------------------------------------------------------------------------

    def cancel(self, number: int, call_id: str) -> None:
        """Somebody cancels a call at an API node."""
        call = self._history.plans[call_id].call
        self._history.touch([call_id], "cancel")
        if call_id not in self._history.accepted:
            self._history.cancelled_early.add(call_id)

        async def cancel(control: StoresCallControl) -> None:
            try:
                await control.cancel(call.fn_id, call_id)
            except errors.CallEnded:
                return
            except errors.CallNotFound:
                if call_id in self._history.accepted:
                    raise Violation(
                        f"cancel: {self._history.name(call_id)} is accepted and not found"
                    ) from None
                return
            self._history.cancelled.add(call_id)
            self._note("cancelled", call_id)

        self._ask(self._world.apis[number], cancel, call_id)

    def redrive(self, number: int, call_id: str) -> None:
        """Somebody has a dead letter queued again."""

        async def redrive(control: StoresCallControl) -> None:
            try:
                new_id = await control.redrive(call_id)
            except errors.DeadLetterNotFound:
                return
            self._history.accepted.setdefault(new_id, self._world.loop.time())
            self._note("redriven", call_id, new_id)

        def new_id() -> str:
            made = self._world.ids()
            old = self._history.plans[call_id]
            call = msgspec.structs.replace(old.call, id=made, idempotency_key="", delay=0)
            self._history.plans[made] = Plan(call, f"{old.name}+", (Outcome.SUCCESS,), old.duration)
            self._history.touch([made], "redriven")
            return made

        self._history.redriven.add(call_id)
        self._world.patch.setattr(call_control, "new_id", new_id)
        self._ask(self._world.apis[number], redrive, call_id)

    def _ask(self, api: ApiNode, work: Callable[[StoresCallControl], Awaitable[None]], call_id: str) -> None:
        if not api.alive:
            return
        control = StoresCallControl(api.stores, api.data, DEFAULTS, api.wall)

        self._serve(api, lambda: work(control), call_id)

    def _serve(self, api: ApiNode, work: Callable[[], Awaitable[Any]], call_id: str) -> None:
        async def serve() -> None:
            api.serve(work, [call_id])

        self._world.do(serve())

    # -- runners that are late -----------------------------------------------------------------

    def speak_late(self, number: int, leased: LeasedCall, verb: str) -> None:
        """The runner of an old lease speaks after it was given back or the call was given to another.

        To an API node that is in trouble, if there is one: then only the end shows what came of it.
        """
        if verb in ("finish", "fail") and not self._history.superseded(leased):
            # A lease that was given back: what its record says of it may be put right later.
            verb = "extend"
        world, name = self._world, self._history.name(leased.call.id)
        api = world.apis[number]
        if api.alive and api.troubles:
            self._serve(api, lambda: self._late(api.data, leased, verb), leased.call.id)
            return
        before = world.state()
        data = world.rules.data(world.stores(world.loop.wall), clock=world.loop.wall)
        if world.do(self._late(data, leased, verb)):
            raise Violation(f"fencing: a late {verb} of {name} was accepted")
        if world.state() != before:
            raise Violation(f"fencing: a late {verb} of {name} changed something")

    @staticmethod
    async def _late(data: DataAccess, leased: LeasedCall, verb: str) -> bool:
        try:
            if verb == "start":
                await data.start(leased)
                return True
            if verb == "extend":
                return not await data.extend([leased.key])
            if verb == "release":
                await data.release([leased.key])
                return False
            reason = Reason.NOT_STARTED if verb == "fail" else Reason.FUNCTION
            ended = msgspec.structs.replace(leased.call, status=Status.ERROR, error="late", reason=reason)
            return not await data.finish([Finished(call=ended, token=leased.key.token)])
        except errors.LeaseLost:
            return False

    def _note(self, text: str, *call_ids: str) -> None:
        self._history.note(self._world.loop.time(), text, call_ids)
