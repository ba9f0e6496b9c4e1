"""The runner's end of a container's stdin and stdout: one call at a time, in the container's format."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runner_node.drivers.contract import Container
from runner_node.protocols.contract import AnswerParser
from shared_models import errors


class StdioLine:
    """``output`` is the sink of the container's stdout; *on_noise* is called when it writes unasked.

    What a function writes between two calls belongs to neither: such a container cannot be trusted
    with another call.
    """

    def __init__(self, on_noise: Callable[[], None]) -> None:
        self._on_noise = on_noise
        self._parser: AnswerParser | None = None
        self._last: AnswerParser | None = None
        self._answered: asyncio.Future[None] | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether stdout is closed."""
        return self._ended

    def output(self, data: bytes) -> None:
        """Takes a piece of stdout; an empty one says that it is closed."""
        parser = self._parser
        if not data:
            self._ended = True
        if parser is None or self._answered is None:
            self._between_calls(data)
            return
        try:
            if data:
                parser.feed(data)
            else:
                parser.end_of_stream()
        except errors.FnError as exc:
            self._settle(exc)
        else:
            if parser.done:
                self._settle(None)

    def _between_calls(self, data: bytes) -> None:
        """What comes now still belongs to the last answer, or to nothing at all."""
        if not data:
            return
        if self._last is None:
            noise = bool(data.strip())
        else:
            try:
                self._last.feed(data)
            except errors.FnError:
                self._last.clean = False
            noise = not self._last.clean
        if noise:
            self._on_noise()

    async def call(self, container: Container, data: bytes, parser: AnswerParser, *, last: bool) -> None:
        """Writes *data* and waits until *parser* is done, or raises what it raised.

        With *last* the function sees the end of its stdin behind *data*.
        """
        answered = asyncio.get_running_loop().create_future()
        self._parser, self._answered = parser, answered
        if self._ended:
            self.output(b"")
        # A function may answer, or leave, before it has read everything: both ways go at the same time.
        writing = asyncio.create_task(self._write(container, data, last=last), name="write to stdin")
        try:
            await answered
        finally:
            self._parser = self._answered = None
            self._last = parser
            if not writing.done():
                parser.clean = False  # half a call is left in its stdin
            writing.cancel()
            await asyncio.wait({writing})

    async def _write(self, container: Container, data: bytes, *, last: bool) -> None:
        try:
            await container.write(data)
            if last:
                await container.close_stdin()
        except errors.FnError:
            # It does not read: what it answers, or how it ends, says more.
            return

    def _settle(self, trouble: errors.FnError | None) -> None:
        if self._answered and not self._answered.done():
            if trouble:
                self._answered.set_exception(trouble)
            else:
                self._answered.set_result(None)
