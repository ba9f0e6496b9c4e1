"""A shorter way for requests that a node has very many of: no task, no request object, no middlewares.

A request whose head and body have come whole may be taken by a ``FastPath``. Whoever takes it answers with
bytes, or hands the request back to the ordinary way, with or without a handler that goes on from where the
fast path stopped. On one connection one request is answered at a time; what a client sends meanwhile waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from aiohttp import web
from multidict import CIMultiDictProxy

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Exchange(ABC):
    """One request, and the way for its answer. Times are of the event loop."""

    path: str
    """As the client sent it, without a query: there is none."""
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    @abstractmethod
    def gone(self) -> bool:
        """Whether the client has hung up."""

    @abstractmethod
    def answer(self, data: bytes) -> None:
        """The whole answer, head and body; the client keeps its connection. Nothing when it has gone."""

    @abstractmethod
    def hand_back(self, handler: Handler | None = None, abandoned: Callable[[], None] | None = None) -> bool:
        """The request goes the ordinary way, to *handler* if one is given. False when the client has gone.

        *abandoned* is called instead of the handler when the client goes before that has begun.
        """


class Pending(ABC):
    """A request that a fast path has taken."""

    @abstractmethod
    def cut_off(self) -> None:
        """The server stops before it is answered; its connection is closed."""


FastPath = Callable[[Exchange], Pending | None]
"""Takes a request, or answers None and has done nothing. It may have answered already."""
