"""Listeners of extensions: what is asked before, and told after, something happens.

A listener that raises an ``FnError`` refuses: the client reads its words and its status. Anything else
that it raises is a bug of the extension, which the log shows and the client is told as a 500.
Source: fnext/listeners.go (Fn 0.3.484).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

from shared_models.app import App
from shared_models.call import Call
from shared_models.errors import FnError
from shared_models.fn import Fn
from shared_models.route import Route
from shared_models.trigger import Trigger

log = logging.getLogger(__name__)

LIMIT = 30.0
"""Seconds that a listener may take; then it counts as broken."""

T = TypeVar("T", App, Fn, Route, Trigger)


class Listener(Generic[T]):
    """Of one kind of resource; override what matters.

    Called on the node that serves the API, outside the datastore's transaction: what a *before* saw may
    have changed by the time of the verb. Removing an app or a function tells of that alone, not of what
    goes with it. Resources are frozen: to change one, answer a copy (``msgspec.structs.replace``).
    """

    async def before_create(self, new: T) -> T:
        """*new* as the client sent it, unchecked and without id; answers what is to be created."""
        return new

    async def after_create(self, created: T) -> None:
        """It is stored; raising tells the client, and takes nothing back."""

    async def before_update(self, stored: T, change: T) -> T:
        """*change* holds only what the client wants changed; answers what is to be laid over *stored*."""
        return change

    async def after_update(self, updated: T) -> None:
        """It is stored, also when nothing differs."""

    async def before_delete(self, stored: T) -> None:
        """It is about to be removed."""

    async def after_delete(self, removed: T) -> None:
        """It is gone."""


class CallListener:
    """Of calls of functions and routes, on the node that runs them; override what matters."""

    async def before_call(self, call: Call) -> None:
        """*call* has a container, and its function has seen nothing of it yet. The client waits meanwhile.

        Raising an FnError ends the call with it, and so says its record.
        """

    async def after_call(self, call: Call) -> None:
        """*call* has ended: its status, error and times are set. Nobody waits; raising changes nothing."""


class ResourceListeners(Generic[T]):
    """The listeners of one kind of resource, asked in the order in which they were added."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._listeners: list[tuple[str, Listener[T]]] = []

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, extension: str, listener: Listener[T]) -> None:
        """*extension* is the name that the log shows."""
        self._listeners.append((extension, listener))

    async def before_create(self, new: T) -> T:
        """*new*, or what the listeners made of it; raises an FnError when one refuses."""
        for extension, listener in self._listeners:
            async with _blaming(extension, f"before create of {self._kind}"):
                new = await listener.before_create(new)
        return new

    async def after_create(self, created: T) -> None:
        for extension, listener in self._listeners:
            async with _blaming(extension, f"after create of {self._kind}"):
                await listener.after_create(created)

    async def before_update(self, stored: T, change: T) -> T:
        """*change*, or what the listeners made of it; raises an FnError when one refuses."""
        for extension, listener in self._listeners:
            async with _blaming(extension, f"before update of {self._kind}"):
                change = await listener.before_update(stored, change)
        return change

    async def after_update(self, updated: T) -> None:
        for extension, listener in self._listeners:
            async with _blaming(extension, f"after update of {self._kind}"):
                await listener.after_update(updated)

    async def before_delete(self, stored: T) -> None:
        """Raises an FnError when one refuses."""
        for extension, listener in self._listeners:
            async with _blaming(extension, f"before delete of {self._kind}"):
                await listener.before_delete(stored)

    async def after_delete(self, removed: T) -> None:
        for extension, listener in self._listeners:
            async with _blaming(extension, f"after delete of {self._kind}"):
                await listener.after_delete(removed)


class CallListeners:
    """The listeners of calls; false when there are none, so that the agent need not ask."""

    def __init__(self) -> None:
        self._listeners: list[tuple[str, CallListener]] = []

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, extension: str, listener: CallListener) -> None:
        """*extension* is the name that the log shows."""
        self._listeners.append((extension, listener))

    async def before(self, call: Call) -> None:
        """Raises an FnError when a listener refuses (or, as a plain 500, when it is broken)."""
        for extension, listener in self._listeners:
            async with _blaming(extension, f"before call {call.id}"):
                await listener.before_call(call)

    async def after(self, call: Call) -> None:
        """Tells all of them; raises nothing."""
        for extension, listener in self._listeners:
            with suppress(FnError):
                async with _blaming(extension, f"after call {call.id}", refusing=False):
                    await listener.after_call(call)


class Listeners:
    """All listeners of a node. Empty at first: extensions are opened when what they may use is."""

    def __init__(self) -> None:
        self.apps: ResourceListeners[App] = ResourceListeners("app")
        self.fns: ResourceListeners[Fn] = ResourceListeners("fn")
        self.routes: ResourceListeners[Route] = ResourceListeners("route")
        self.triggers: ResourceListeners[Trigger] = ResourceListeners("trigger")
        self.calls = CallListeners()


@asynccontextmanager
async def _blaming(extension: str, what: str, *, refusing: bool = True) -> AsyncIterator[None]:
    """Lets a refusal through where there is something to refuse; all else becomes a line in the log."""
    try:
        async with asyncio.timeout(LIMIT):
            yield
    except Exception as exc:
        if refusing and isinstance(exc, FnError):
            raise
        log.exception("extension %s: %s failed", extension, what)
        raise FnError from exc
