"""The way between nodes: requests and answers that get lost, come twice, or come late."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

from shared_models import errors
from shared_models.app import App
from shared_models.call import Call, Finished, LeasedCall, LeaseKey
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from shared_models.route import Route
from shared_models.runner import RunnerReport, RunnerState
from shared_models.trigger import TriggerTarget
from shared_models.wanted import Wanted
from tests.model.api import ApiNode, ids_in
from tests.model.history import Crashed, History

TIMEOUT = 15.0
"""Seconds after which a client gives a request up, long polls aside."""
TRIES = 4
PAUSE = 0.5
"""Seconds before the first repetition; doubles."""
PATIENCE = 1.5
"""Timeouts after which nothing is repeated any more."""


class Fate(enum.Enum):
    """What becomes of one request and its answer."""

    WELL = "arrives"
    REFUSED = "finds no connection"
    LOST = "is lost"
    ANSWER_LOST = "has its answer lost"
    TWICE = "arrives twice"
    AGAIN_LATER = "arrives, and again 40 s later"
    SLOW = "arrives 3 s later"
    LATE = "arrives 40 s later"
    ANSWER_SLOW = "has its answer delayed by 3 s"


_BEFORE = {Fate.SLOW: 3.0, Fate.LATE: 40.0}
_AGAIN = {Fate.TWICE: 0.0, Fate.AGAIN_LATER: 40.0}


class Network:
    """All connections to the API nodes."""

    def __init__(self, apis: Sequence[ApiNode], history: History) -> None:
        self.apis = apis
        self.history = history
        self.fates: deque[Fate] = deque()
        """Of the next requests, one each."""
        self.cut: set[str] = set()
        """Clients whose requests are lost."""

    def calm(self) -> None:
        """No more faults."""
        self.fates.clear()
        self.cut.clear()


class Failed(Exception):
    """A request without an answer; *sent*: the node may have acted on it."""

    def __init__(self, error: errors.FnError, *, sent: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.sent = sent


class Client(DataAccess):
    """What the hybrid client does: several addresses, time limits, repetitions."""

    def __init__(self, name: str, network: Network) -> None:
        self._name = name
        self._network = network
        self._current = 0
        self.dead = False
        """Its process is gone."""

    async def ask(self, verb: str, *args: Any, wait: float = 0.0, repeat: bool = True) -> Any:
        """The answer of whichever API node has one; raises what that raised, or APINodeUnavailable."""
        loop = asyncio.get_running_loop()
        last = loop.time() + PATIENCE * (TIMEOUT + wait)
        pause = PAUSE
        for left in reversed(range(TRIES)):
            try:
                return await self._once(verb, args, wait)
            except Failed as failed:
                if not left or (failed.sent and not repeat) or loop.time() >= last:
                    raise failed.error from None
                if verb == "enqueue" and isinstance(failed.error, errors.QueueUnavailable):
                    raise failed.error from None
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    async def _once(self, verb: str, args: tuple[Any, ...], wait: float) -> Any:
        if self.dead:
            raise asyncio.CancelledError
        network, history = self._network, self._network.history
        loop = asyncio.get_running_loop()
        api = network.apis[self._current % len(network.apis)]
        fate = network.fates.popleft() if network.fates else Fate.WELL
        about = ids_in(args)
        if self._name in network.cut:
            fate = Fate.LOST
        elif not api.alive:
            fate = Fate.REFUSED
        history.note(loop.time(), f"{self._name} -> {api.name} {verb}: {fate.value}", about)
        if fate is not Fate.WELL:
            history.touch(about, f"{verb} {fate.value}")
        if fate is Fate.REFUSED:
            self._fail(sent=False)
        answer: asyncio.Future[Any] = loop.create_future()
        if fate is not Fate.LOST:
            loop.call_later(_BEFORE.get(fate, 0.0), self._deliver, api, verb, args, fate, answer)
            if fate in _AGAIN:
                unread: asyncio.Future[Any] = loop.create_future()
                loop.call_later(_AGAIN[fate], self._deliver, api, verb, args, Fate.ANSWER_LOST, unread)
        try:
            async with asyncio.timeout(TIMEOUT + wait):
                return await answer
        except TimeoutError:
            history.touch(about, f"no answer to {verb}")
            self._fail(sent=True)
        except errors.Unavailable as exc:
            self._fail(sent=True, error=exc)
        except Crashed:
            self._fail(sent=True)

    def _fail(self, *, sent: bool, error: errors.FnError | None = None) -> Any:
        self._current += 1
        raise Failed(error or errors.APINodeUnavailable(), sent=sent)

    def _deliver(
        self, api: ApiNode, verb: str, args: tuple[Any, ...], fate: Fate, answer: asyncio.Future[Any]
    ) -> None:
        history = self._network.history
        loop = asyncio.get_running_loop()
        about = ids_in(args)
        if not api.alive:
            if not answer.done() and fate is not Fate.ANSWER_LOST:
                answer.set_exception(Crashed())
            return
        data = api.data

        async def work() -> Any:
            return await getattr(data, verb)(*args)

        def handled(task: asyncio.Task[Any]) -> None:
            self._handled(verb, args, task)
            leased = ids_in([task.result()]) if verb == "dequeue" and _well(task) else set()
            if fate is not Fate.WELL or answer.done() or self.dead:
                history.touch(leased | about, f"{verb} {fate.value}")
            if fate is Fate.ANSWER_SLOW:
                loop.call_later(3.0, _tell, answer, task)
            elif fate is not Fate.ANSWER_LOST:
                _tell(answer, task)

        api.serve(work, about).add_done_callback(handled)

    def _handled(self, verb: str, args: tuple[Any, ...], task: asyncio.Task[Any]) -> None:
        history, at = self._network.history, asyncio.get_running_loop().time()
        if not _well(task):
            return
        result = task.result()
        if verb == "enqueue":
            call: Call = args[0]
            call_id = result or call.id
            history.accepted.setdefault(call_id, at)
            if call.idempotency_key:
                history.keys[call.fn_id, call.idempotency_key].add(call_id)
            history.note(at, "accepted", [call_id])
        elif verb == "dequeue":
            for one in result:
                history.handed_out[one.call.id].append(one)
                history.note(at, f"handed out, attempt {one.lease.attempt}", [one.call.id])

    # -- the verbs -----------------------------------------------------------------------------

    async def app_id(self, name: str) -> str:
        return str(await self.ask("app_id", name))

    async def app(self, app_id: str) -> App:
        found: App = await self.ask("app", app_id)
        return found

    async def route(self, app_id: str, path: str) -> Route:
        found: Route = await self.ask("route", app_id, path)
        return found

    async def fn(self, fn_id: str) -> Fn:
        found: Fn = await self.ask("fn", fn_id)
        return found

    async def trigger(self, app_name: str, type_: str, source: str) -> TriggerTarget:
        found: TriggerTarget = await self.ask("trigger", app_name, type_, source)
        return found

    async def enqueue(self, call: Call) -> str:
        return str(await self.ask("enqueue", call) or call.id)

    async def dequeue(
        self, node: str, limit: int, wait: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        args = (node, limit, wait, without) if without else (node, limit, wait)
        found: list[LeasedCall] = await self.ask("dequeue", *args, wait=wait, repeat=False)
        return found

    async def start(self, leased: LeasedCall) -> None:
        await self.ask("start", leased)

    async def extend(self, keys: Sequence[LeaseKey]) -> list[str]:
        lost: list[str] = await self.ask("extend", list(keys))
        return lost

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        await self.ask("release", list(keys))

    async def finish(self, batch: Sequence[Finished]) -> list[str]:
        refused: list[str] = await self.ask("finish", list(batch))
        return refused

    async def wanted(self, since: str) -> Wanted | None:
        found: Wanted | None = await self.ask("wanted", since)
        return found

    async def heartbeat(self, report: RunnerReport) -> RunnerState:
        state: RunnerState = await self.ask("heartbeat", report)
        return state


def _well(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is None


def _tell(answer: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
    if answer.done():
        return
    if task.cancelled():
        answer.set_exception(Crashed())
    elif exc := task.exception():
        answer.set_exception(exc)
    else:
        answer.set_result(task.result())
