"""An API node of the model: the real rules, on stores that refuse, stall, or see their node die."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import ContextVar
from typing import Any, TypeVar

from services.stores import Stores
from shared_models import errors
from shared_models.call import Call, Finished, LeasedCall, LeaseKey
from shared_models.ids import is_id
from shared_models.interfaces import DataAccess
from tests.model.history import Crashed, History

T = TypeVar("T")
Clock = Callable[[], float]

_about: ContextVar[set[str] | None] = ContextVar("about", default=None)
"""The calls that the request in hand has to do with."""


class Trouble(enum.Enum):
    """What happens to one operation on a store."""

    NONE = "nothing"
    CRASH_BEFORE = "the node dies before it"
    CRASH_AFTER = "the node dies after it"
    FAIL_BEFORE = "the store refuses it"
    FAIL_AFTER = "the store does it, and its answer is lost"
    STALL = "it begins 5 s later"
    STALL_LONG = "it begins 100 s later"


RESTART = 8.0
"""Seconds after which a dead node is started again."""
_STALLS = {Trouble.STALL: 5.0, Trouble.STALL_LONG: 100.0}


class Life:
    """An API node from its start to its end, whichever way that comes; *ended* is told."""

    def __init__(
        self, name: str, history: History, troubles: deque[Trouble], ended: Callable[[], None]
    ) -> None:
        self.name = name
        self.history = history
        self.troubles = troubles
        self.dead = False
        self._ended = ended
        self._tasks: set[asyncio.Task[Any]] = set()

    def die(self) -> None:
        """At once: tasks that were under way do nothing more."""
        if self.dead:
            return
        self.dead = True
        self._ended()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def serve(self, work: Callable[[], Awaitable[T]], about: Iterable[str]) -> asyncio.Task[T]:
        """Handles a request about these calls; what goes wrong with it is a fault in their lives."""

        async def handle() -> T:
            ids = set(about)
            _about.set(ids)
            try:
                return await work()
            except errors.Unavailable:
                self.history.touch(ids, "a store was away")
                raise
            except (Crashed, asyncio.CancelledError):
                self.history.touch(ids, f"{self.name} died")
                raise Crashed from None

        task = asyncio.get_running_loop().create_task(handle())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self.history.watch)
        return task

    async def operate(
        self, store: str, verb: str, method: Callable[..., Coroutine[Any, Any, T]], args: Any, kwargs: Any
    ) -> T:
        """One operation on a store, and the trouble that it meets."""
        self._live()
        trouble = self.troubles.popleft() if self.troubles else Trouble.NONE
        about = _about.get()
        ids = about if about is not None else set()
        ids |= ids_in(args)
        if trouble is not Trouble.NONE:
            self.history.touch(ids, f"{store}.{verb}: {trouble.value}")
            self.history.note(
                asyncio.get_running_loop().time(), f"{self.name} {store}.{verb}: {trouble.value}"
            )
        if trouble is Trouble.CRASH_BEFORE:
            self._crash()
        if trouble is Trouble.FAIL_BEFORE:
            raise _away(store)
        if trouble is Trouble.STALL_LONG:
            self.history.stalled |= ids
        await asyncio.sleep(_STALLS.get(trouble, 0.0))
        self._live()
        result = await method(*args, **kwargs)
        if isinstance(result, list):
            ids.update(one.call.id for one in result if isinstance(one, LeasedCall))
        if trouble is not Trouble.NONE:
            self.history.touch(ids, f"{store}.{verb}: {trouble.value}")
        if trouble is Trouble.CRASH_AFTER:
            self._crash()
        if trouble is Trouble.FAIL_AFTER:
            raise _away(store)
        self._live()
        return result

    def _crash(self) -> None:
        self.die()
        raise Crashed

    def _live(self) -> None:
        if self.dead:
            raise Crashed


class Watched:
    """A store as one life of a node sees it."""

    def __init__(self, name: str, store: Any, life: Life) -> None:
        self._name = name
        self._store = store
        self._life = life

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self._store, verb)
        if not callable(method):
            return method

        async def operation(*args: Any, **kwargs: Any) -> Any:
            return await self._life.operate(self._name, verb, method, args, kwargs)

        return operation


def watched(stores: Stores, life: Life) -> Stores:
    """*stores* as *life* sees them."""
    names = [one.name for one in dataclasses.fields(stores)]
    seen: dict[str, Any] = {name: Watched(name, getattr(stores, name), life) for name in names}
    return dataclasses.replace(stores, **seen)


class ApiNode:
    """One of several on the same stores."""

    def __init__(
        self,
        name: str,
        history: History,
        clock: Clock,
        make: Callable[[Clock], Stores],
        rules: Callable[[Stores, Clock], DataAccess],
    ) -> None:
        self.name = name
        self.ahead = 0.0
        """Seconds by which its clock is wrong."""
        self.troubles: deque[Trouble] = deque()
        """Of its next operations on stores, one each."""
        self._history = history
        self._clock = clock
        self._make = make
        self._rules = rules
        self._life: Life | None = None
        self.start()

    def wall(self) -> float:
        """Unix seconds by its own clock."""
        return self._clock() + self.ahead

    @property
    def alive(self) -> bool:
        """Whether it takes connections."""
        return self._life is not None and not self._life.dead

    def start(self) -> None:
        """A new life, which remembers nothing."""
        self.stop()
        self._life = Life(self.name, self._history, self.troubles, self._revive)
        self.stores = watched(self._make(self.wall), self._life)
        self.data = self._rules(self.stores, self.wall)

    def stop(self) -> None:
        """It is killed."""
        self.troubles.clear()
        if self._life:
            self._life.die()

    def _revive(self) -> None:
        """Somebody sees to it that a node that died is started again."""

        def start_again() -> None:
            if not self.alive:
                self.start()

        self.troubles.clear()
        asyncio.get_running_loop().call_later(RESTART, start_again)

    def serve(self, work: Callable[[], Awaitable[T]], about: Iterable[str]) -> asyncio.Task[T]:
        """Handles a request; the task ends in Crashed when the node dies."""
        assert self._life is not None
        return self._life.serve(work, about)


def ids_in(args: Iterable[Any]) -> set[str]:
    """The ids of the calls that the arguments of a verb name."""
    found: set[str] = set()
    for arg in args:
        if isinstance(arg, (list, tuple)):
            found |= ids_in(arg)
        elif isinstance(arg, str) and is_id(arg):
            found.add(arg)
        elif isinstance(arg, (Call, LeaseKey)):
            found.add(arg.id)
        elif isinstance(arg, (LeasedCall, Finished)):
            found.add(arg.call.id)
    return found


def _away(store: str) -> errors.Unavailable:
    return errors.QueueUnavailable() if store == "queue" else errors.StoreUnavailable()
