"""A shorter way for requests that a node has very many of: no task, no request object, no middlewares.

A request whose head and body have come whole may be taken by a ``FastPath``. Whoever takes it answers with
bytes, or hands the request back to the ordinary way, with or without a handler that goes on from where the
fast path stopped. On one connection one request is answered at a time; what a client sends meanwhile waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Unread = Callable[[], Coroutine[Any, Any, None]]


class Exchange(ABC):
    """One request, and the way for its answer. Times are of the event loop."""

    path: str
    """As the client sent it, with its query."""
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    @abstractmethod
    def gone(self) -> bool:
        """Whether the client has hung up."""

    @abstractmethod
    def answer(self, data: bytes) -> None:
        """The whole answer, head and body; the client keeps its connection. Nothing when it has gone.

        Only the first ``answer`` or ``hand_back`` of a request counts.
        """

    @abstractmethod
    def hand_back(self, handler: Handler | None = None, unread: Unread | None = None) -> None:
        """The request goes the ordinary way, to *handler* if one is given.

        When the client has gone, or goes before the handler has begun, *unread* is run instead, as a request
        like any other: a server that stops waits for it, and cancels it at last.
        """


class Pending(ABC):
    """A request that a fast path has taken."""

    @abstractmethod
    def cut_off(self) -> None:
        """The server stops before it is answered; its connection is closed."""


FastPath = Callable[[Exchange], Pending | None]
"""Takes a request, or answers None and has done nothing. It may have answered already."""
