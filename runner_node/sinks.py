"""Where an answer goes that is passed on in pieces instead of being collected."""

from __future__ import annotations

from abc import ABC, abstractmethod

from runner_node.protocols.http_stream import Response


class Sink(ABC):
    """``begin`` once, then ``write`` for every further piece; each returns when the next piece may come.

    A sink whose reader has gone takes everything all the same: the call goes on.
    """

    @abstractmethod
    async def begin(self, response: Response, length: int | None) -> None:
        """The head, its body being the first piece; *length*: bytes of the whole body, None if unknown."""

    @abstractmethod
    async def write(self, piece: bytes) -> None:
        """One more piece."""


class Kept(Sink):
    """Keeps the first *limit* bytes: for calls whose answer nobody waits for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._body = bytearray()

    async def begin(self, response: Response, length: int | None) -> None:
        """See Sink."""
        await self.write(response.body)

    async def write(self, piece: bytes) -> None:
        """See Sink."""
        if left := self._limit - len(self._body):
            self._body += piece[:left]

    @property
    def body(self) -> bytes:
        """What was kept."""
        return bytes(self._body)
