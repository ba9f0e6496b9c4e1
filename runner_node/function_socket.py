"""The runner's end of a function's unix socket: one connection, one call at a time."""

from __future__ import annotations

import asyncio
import os
import select
import stat
from collections.abc import AsyncIterator, Callable
from typing import cast

from runner_node.protocols.http_stream import LAST_CHUNK, ResponseParser, encode_chunk
from runner_node.protocols.streamed import Streamed
from runner_node.sinks import Sink
from shared_models import errors

Body = bytes | AsyncIterator[bytes]
Heard = Callable[[BaseException | None], None]
"""Told what broke an answer, or None."""

COPIED = 16 << 10
"""Bytes of a body below which a copy costs less than buffers of its own."""
_END = b"\r\n" + LAST_CHUNK
HASTE = 0.02
"""Seconds after the head of an answer before what there is of its body is passed on."""
HELD = 64 << 10
"""Bytes of an answer that is passed on above which the function must wait."""


class SocketNotReady(Exception):
    """The function has not made its socket, or does not listen on it yet."""


async def connect(io_dir: str, name: str) -> FunctionSocket:
    """A connection to the function that shares *io_dir*; raises SocketNotReady or ContainerInitFailed.

    *name* must be a socket, or a link to one in the same folder. The folder belongs to the function, so
    nothing in it is trusted: the socket is opened without following links, checked, and connected to
    through that descriptor. A link swapped in between leads nowhere.
    """
    descriptor = _open_socket(io_dir, name)
    try:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_unix_connection(FunctionSocket, f"/proc/self/fd/{descriptor}")
    except OSError as exc:
        raise SocketNotReady(exc.strerror or str(exc)) from exc
    finally:
        os.close(descriptor)
    return protocol


def _open_socket(io_dir: str, name: str) -> int:
    path = os.path.join(io_dir, name)
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            target = os.readlink(path)
            if "/" in target:
                raise errors.ContainerInitFailed(detail=f"{name} links out of its folder: {target[:200]}")
            path = os.path.join(io_dir, target)
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        raise SocketNotReady(exc.strerror or str(exc)) from exc
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise errors.ContainerInitFailed(detail=f"{name} is not a socket")
    return descriptor


class FunctionSocket(asyncio.Protocol):
    """Made by ``connect``. ``call`` sends a request and waits for the parser to be done."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._answered: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._poll = select.poll()
        self._loop = asyncio.get_running_loop()
        self._hurry: asyncio.TimerHandle | None = None
        self._held_back = False
        self._trouble: BaseException | None = None
        self._heard: Heard | None = None
        self._woken = False
        """``_heard`` was called."""
        self.open = False

    def usable(self) -> bool:
        """Whether a call may be sent: open, and the function has neither closed it nor said anything unasked.

        The kernel is asked: that a function has just died is known there before the loop hears of it.
        """
        return self.open and not self._poll.poll(0)

    async def call(self, head: bytes, body: Body, parser: ResponseParser, sink: Sink | None = None) -> None:
        """Returns when *parser* is done. Raises what the parser or *body* raises.

        What is ``streamed`` has gone to *sink* by then. Afterwards the connection is open only if it
        may carry another call.
        """
        if isinstance(body, bytes):
            self.send(head, body, parser)
            await self.finish(parser, sink)
            return
        assert self._transport is not None
        self._begin(parser, None)
        sending = self._loop.create_task(self._stream(self._transport, head, body))
        sending.add_done_callback(self._sent)
        try:
            await self._hear(parser, sink)
        finally:
            self._parser = None
            self._end(parser, sent=await _ended(sending))

    def send(self, head: bytes, body: bytes, parser: ResponseParser, heard: Heard | None = None) -> None:
        """Sends a request; ``finish`` follows, or ``end`` when *parser* is done.

        *heard* is called once: when the answer is whole, when there is something of it to pass on, or when
        it broke.
        """
        transport = self._transport
        assert transport is not None
        self._begin(parser, heard)
        if not body:
            transport.write(head + LAST_CHUNK)
        elif len(body) < COPIED:
            transport.write(b"".join((head, encode_chunk(body), body, _END)))
        else:
            transport.writelines((head, encode_chunk(body), body, _END))

    async def finish(self, parser: ResponseParser, sink: Sink | None) -> None:
        """What ``call`` does once it has sent everything."""
        try:
            await self._hear(parser, sink)
        finally:
            self.end(parser)

    def end(self, parser: ResponseParser) -> None:
        """The call of *parser* is over, or given up."""
        self._parser = None
        self._end(parser, sent=True)

    def _begin(self, parser: ResponseParser, heard: Heard | None) -> None:
        self._parser, self._heard = parser, heard
        self._answered = self._trouble = None
        self._woken = False

    async def _hear(self, parser: ResponseParser, sink: Sink | None) -> None:
        self._heard = None
        if not self._woken:
            self._answered = self._loop.create_future()
            await self._answered
        elif self._trouble:
            raise self._trouble
        if not parser.done:
            assert sink is not None
            assert parser.streamed is not None
            await self._pass_on(parser, parser.streamed, sink)

    def _end(self, parser: ResponseParser, *, sent: bool) -> None:
        self._answered = self._heard = None
        if self._hurry:
            self._hurry.cancel()
            self._hurry = None
        if not (sent and parser.done and parser.reusable):
            self.close()
        elif self._held_back:
            self._go_on()

    async def _stream(self, transport: asyncio.Transport, head: bytes, body: AsyncIterator[bytes]) -> None:
        transport.write(head)
        async for piece in body:
            if piece:
                transport.writelines((encode_chunk(piece), piece, b"\r\n"))
            if self._writable:
                await self._writable
        transport.write(LAST_CHUNK)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        if not sending.cancelled() and (trouble := sending.exception()):
            self._answer(trouble)

    async def _pass_on(self, parser: ResponseParser, streamed: Streamed, sink: Sink) -> None:
        """To *sink* as it comes; what comes meanwhile is held, and the function too when that is much."""
        while True:
            for piece in streamed.pieces():
                if streamed.begun:
                    await sink.write(piece)
                else:
                    await sink.begin(parser.head(piece), streamed.length)
            if parser.done and not streamed.held:
                streamed.end()
            if not streamed.begun and (streamed.typed or parser.done):
                # Else the first bytes tell the content type.
                await sink.begin(parser.head(b""), streamed.length)
            if streamed.held:
                continue
            if parser.done:
                return
            if self._trouble:
                raise self._trouble
            if self._held_back:
                self._go_on()
            self._answered = self._loop.create_future()
            await self._answered

    def _go_on(self) -> None:
        self._held_back = False
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Idempotent."""
        self.open = False
        if self._transport:
            self._transport.abort()

    # -- what asyncio calls --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self.open = True

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            self.close()  # nobody asked
            return
        try:
            parser.feed(data)
        except errors.BadFunction as exc:
            self._answer(exc)
        else:
            if parser.done:
                self._answer(None)
            elif parser.streamed:
                self._more(parser.streamed)

    def _more(self, streamed: Streamed) -> None:
        """There is more to come of an answer that may be passed on."""
        if not streamed.goes:
            if self._hurry is None:
                self._hurry = self._loop.call_later(HASTE, self._hurries, streamed)
            return
        self._answer(None)
        if streamed.held > HELD and not self._held_back and self._transport:
            self._held_back = True
            self._transport.pause_reading()

    def _hurries(self, streamed: Streamed) -> None:
        streamed.go()
        self._answer(None)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._writable:
            self._resume()
        if self._parser is None:
            return
        try:
            self._parser.end_of_stream()
        except errors.BadFunction as trouble:
            self._answer(trouble)
        else:
            self._answer(None)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        self._resume()

    def _resume(self) -> None:
        if self._writable and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _answer(self, trouble: BaseException | None) -> None:
        """Wakes the call: its answer is complete, there is more of it, or *trouble*."""
        if self._heard:
            heard, self._heard = self._heard, None
            self._trouble, self._woken = trouble, True
            heard(trouble)
        elif not self._answered or self._answered.done():
            self._trouble = self._trouble or trouble
        elif trouble:
            self._answered.set_exception(trouble)
        else:
            self._answered.set_result(None)


async def _ended(sending: asyncio.Task[None]) -> bool:
    """Ends *sending* now: a function may answer, or leave, before it has all. Whether it was sent all."""
    sending.cancel()
    await asyncio.wait({sending})
    return not sending.cancelled() and sending.exception() is None
