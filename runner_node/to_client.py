"""An answer on its way to a client while its function is still giving it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from runner_node.protocols.http_stream import Response
from runner_node.sinks import Sink

_RESET = struct.pack("ii", 1, 0)
HeadOf = Callable[[Response], tuple[int, "CIMultiDict[str]"]]
"""How a function's answer begins for a client: status and headers, judged by the first piece of its body."""


class ToClient(Sink):
    """The answer to *request*; ``answer`` is None until it has begun.

    A client that does not take it holds the function back, within the server's limits; what a client that
    has hung up would have got is thrown away.
    """

    __slots__ = ("_empty", "_gone", "_head_of", "_request", "answer")

    def __init__(self, request: web.Request, head_of: HeadOf) -> None:
        self._request = request
        self._head_of = head_of
        self._gone = self._empty = False
        self.answer: web.StreamResponse | None = None

    async def begin(self, response: Response, length: int | None) -> None:
        """See Sink."""
        status, headers = self._head_of(response)
        answer = self.answer = web.StreamResponse(status=status, headers=headers)
        answer.content_length = length
        self._empty = self._request.method == "HEAD" or status in (204, 304)
        try:
            await answer.prepare(self._request)
            if not response.body or self._empty:
                self._request.writer.send_headers()
        except ConnectionError:
            self._gone = True
        await self.write(response.body)

    async def write(self, piece: bytes) -> None:
        """See Sink."""
        if self._gone or self._empty or not piece:
            return
        assert self.answer is not None
        try:
            await self.answer.write(piece)
        except ConnectionError:
            self._gone = True

    def spoil(self) -> None:
        """The answer will not be whole. Where only the end of the connection would end it, that must not."""
        answer, transport = self.answer, self._request.transport
        if answer is None or transport is None or answer.content_length is not None:
            return
        if self._request.version >= HttpVersion11:
            return  # chunked
        # The connection will be closed like any other that is cut; this makes a reset of it.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
