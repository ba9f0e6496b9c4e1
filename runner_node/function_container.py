"""A container as its calls see it: what its function is told, what that writes meanwhile, and how it ends.

Which calls may have it, and when, is in ``hot_container``.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from runner_node import exits, function_socket
from runner_node.calls import Target
from runner_node.drivers.contract import SOCKET, Container, ContainerDriver, ContainerSpec, Exit
from runner_node.func_logs import CallLog
from runner_node.function_socket import Body, FunctionSocket, Heard, SocketNotReady
from runner_node.notes import Notes
from runner_node.protocols.contract import AnswerParser
from runner_node.protocols.http_stream import ResponseParser
from runner_node.reasons import End, NeverReached, end_in_function
from runner_node.sinks import Sink
from runner_node.stdio_line import StdioLine
from shared_models import errors
from shared_models.call import Stat

log = logging.getLogger(__name__)

FIRST_LOOK = 0.002
LONGEST_LOOK = 0.02
LOOKS = 20
"""Seconds between two looks for a function's socket, at least and at most. In between they are this part of
the time that it has taken so far: it is seen late by a fortieth of that on average, quick or slow."""
LAST_WORDS = 0.5
"""Seconds that a container gets to end after it has cut its answer short."""
ENDING = 5.0
"""The same where its stdout has ended as well: a machine that is busy takes a while to tell."""
EXPLAINS = 1.0
"""Seconds that a container gets to end after its connection broke; then something else broke it."""


class FunctionContainer(ABC):
    """Has a container from ``_launch`` to ``_remove``; *max_log_size* in bytes, see ``Notes``."""

    def __init__(self, target: Target, max_log_size: int) -> None:
        self.target = target
        self._loop = asyncio.get_running_loop()
        self._container: Container | None = None
        self._socket: FunctionSocket | None = None
        self._notes = Notes(max_log_size)
        self._line = StdioLine(self._noise)
        self._watcher: asyncio.Task[None] | None = None
        self._exit: Exit | None = None

    @abstractmethod
    def _noise(self) -> None:
        """It wrote to stdout unasked."""

    @abstractmethod
    def _exited(self, how: Exit) -> None:
        """It has ended, by itself or not."""

    # -- from its start to its end -------------------------------------------------------------

    async def _launch(self, driver: ContainerDriver, spec: ContainerSpec) -> None:
        self._container = await driver.start(spec, self._output, self._line.output)
        self._watcher = asyncio.create_task(self._watch(self._container), name=f"watch {spec.id}")

    async def _until_it_listens(self, start_timeout: float) -> None:
        """Until its function has a socket; raises ContainerInitFailed or ContainerInitTimedOut."""
        assert self._container is not None
        assert self._watcher is not None
        begun = self._loop.time()
        while True:
            try:
                self._socket = await function_socket.connect(self._container.io_dir, SOCKET)
                return
            except SocketNotReady:
                pass
            if self._exit is not None:
                raise errors.ContainerInitFailed(detail=exits.how(self._exit))
            waited = self._loop.time() - begun
            if waited >= start_timeout:
                raise errors.ContainerInitTimedOut(detail=f"no socket within {start_timeout:g} s")
            pause = min(max(waited / LOOKS, FIRST_LOOK), LONGEST_LOOK)
            await asyncio.wait({self._watcher}, timeout=pause)

    async def _watch(self, container: Container) -> None:
        self._exit = await container.wait()
        self._exited(self._exit)

    async def _remove(self) -> None:
        if self._socket:
            self._socket.close()
        if self._container:
            await self._container.remove()
        if self._watcher:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})

    # -- calls -----------------------------------------------------------------------------

    def begin(self, call_log: CallLog) -> None:
        """What the function writes from now on belongs to *call_log*."""
        self._notes.begin(call_log)

    def disown(self) -> None:
        """What the function writes from now on belongs to no call: it did not get the one that began."""
        nobody = CallLog(1)
        nobody.close()
        self._notes.begin(nobody)

    async def call(
        self, head: bytes, body: Body, parser: ResponseParser, timeout: float, sink: Sink | None = None
    ) -> None:
        """Returns when *parser* is done, and *sink* has what of it was ``streamed``.

        Raises CallTimedOut after *timeout* seconds, NeverReached when nothing was sent, or a BadFunction.
        """
        try:
            async with asyncio.timeout(timeout):
                if self._socket is None or not self._socket.usable():
                    await self._connect_again()
                assert self._socket is not None
                await self._socket.call(head, body, parser, sink)
        except TimeoutError:
            raise errors.CallTimedOut(detail=f"no answer within {timeout:g} s") from None

    @property
    def ended(self) -> bool:
        """Whether it is known to run no more, though the call that has it may not have come to its end."""
        return self._exit is not None

    @property
    def connected(self) -> bool:
        """Whether a call can be sent at once."""
        return self._socket is not None and self._socket.usable()

    def send(self, head: bytes, body: bytes, parser: ResponseParser, heard: Heard | None = None) -> None:
        """Sends a call over the socket, which is ``connected``. See ``FunctionSocket.send``."""
        assert self._socket is not None
        self._socket.send(head, body, parser, heard)

    def end(self, parser: ResponseParser) -> None:
        """The call that was sent is over, or given up."""
        assert self._socket is not None
        self._socket.end(parser)

    async def finish(self, parser: ResponseParser, until: float, timeout: float, sink: Sink | None) -> None:
        """What ``call`` does once it has sent everything; *until*, in the loop's time, *timeout* is over."""
        assert self._socket is not None
        try:
            async with asyncio.timeout_at(until):
                await self._socket.finish(parser, sink)
        except TimeoutError:
            raise errors.CallTimedOut(detail=f"no answer within {timeout:g} s") from None

    async def _connect_again(self) -> None:
        assert self._container is not None
        if self._socket:
            self._socket.close()
        try:
            self._socket = await function_socket.connect(self._container.io_dir, SOCKET)
        except SocketNotReady as exc:
            raise NeverReached(detail=f"the function's socket is gone: {exc}") from None

    async def end_of(self, error: errors.FnError) -> End:
        """The end of the call that failed with *error*: by how the container ended where that explains it."""
        if self._watcher and isinstance(error, errors.FunctionResponseError):
            # The connection breaks a moment before the engine knows that the container has ended.
            await asyncio.wait({self._watcher}, timeout=EXPLAINS)
            if self._exit is not None:
                return exits.end_of(error, self._exit)
        return end_in_function(error)

    @property
    def chatty(self) -> bool:
        """Whether the container wrote something lately, so that more may be on its way."""
        return self._notes.chatty

    async def drain_output(self) -> None:
        """Returns when what was written before now is in the log of the call."""
        if self._container:
            await self._container.drain_output()

    def _output(self, data: bytes) -> None:
        if not self._notes.write(data) and log.isEnabledFor(logging.DEBUG):
            log.debug("container of %s wrote between calls: %r", self._name(), data[:200])

    async def converse(self, data: bytes, parser: AnswerParser, timeout: float, *, last: bool) -> None:
        """A call over stdin and stdout; returns when *parser* is done, with *last* when it has ended well.

        Raises CallTimedOut after *timeout* seconds, NeverReached when nothing was sent, ContainerExited, or
        another BadFunction.
        """
        assert self._container is not None
        if self._line.ended and self._notes.served:
            raise NeverReached(detail="the function has closed its stdout")
        try:
            async with asyncio.timeout(timeout):
                await self._line.call(self._container, data, parser, last=last)
                if last:
                    exits.must_be_zero(await self._container.wait())
        except TimeoutError:
            raise errors.CallTimedOut(detail=f"no answer within {timeout:g} s") from None
        except errors.BadFunction:
            # A cut answer is best explained by how the container ended, if it has.
            if self._watcher:
                await asyncio.wait({self._watcher}, timeout=ENDING if self._line.ended else LAST_WORDS)
            if self._exit is not None:
                exits.must_be_zero(self._exit)
            raise

    def stats(self) -> list[Stat]:
        """What was sampled of the container since ``begin``, thinned out; for the record of the call."""
        return self._notes.stats()

    def _name(self) -> str:
        return self.target.fn_id or f"{self.target.app_id}{self.target.path}"
