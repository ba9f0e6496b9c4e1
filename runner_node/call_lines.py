"""What functions write, line by line as JSON on the node's stdout, for whoever ships the logs of containers.

    {"time": "2026-01-02T03:04:05.678Z", "call_id": "...", "app_id": "...", "fn_id": "...", "line": "hello"}

A route has ``"path"`` in place of ``"fn_id"``. A thread of its own writes: a reader that is slow holds no
call back, but loses lines, which are counted.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TextIO

import msgspec

from runner_node.metrics import call_lines_lost
from shared_models import times
from shared_models.call import Call

MOST = 10_000
"""Lines that may wait to be written."""
LONGEST = 16 << 10
"""Bytes of a line; what is longer goes on in the next one."""
LAST = 3.0
"""Seconds that a node which stops waits for its last lines."""


class CallLines:
    """Made by ``open_call_lines``."""

    def __init__(self) -> None:
        self.lines: queue.Queue[bytes | None] = queue.Queue(MOST)

    def following(self, call: Call) -> Callable[[bytes], None]:
        """A follower of *call*'s log."""
        about = {"call_id": call.id, "app_id": call.app_id}
        about |= {"fn_id": call.fn_id} if call.fn_id else {"path": call.path}
        rest = b""

        def follow(data: bytes) -> None:
            nonlocal rest
            *whole, rest = (rest + data).split(b"\n")
            if rest and (not data or len(rest) >= LONGEST):  # nothing more comes, or no end of the line
                whole, rest = [*whole, rest], b""
            for line in whole:
                for at in range(0, len(line) or 1, LONGEST):
                    self._put(about, line[at : at + LONGEST])

        return follow

    def _put(self, about: dict[str, str], line: bytes) -> None:
        text = line.decode("utf-8", "replace").removesuffix("\r")
        try:
            self.lines.put_nowait(msgspec.json.encode({"time": times.now(), **about, "line": text}))
        except queue.Full:
            call_lines_lost.inc()


def both(one: Callable[[bytes], None], other: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """A follower that tells two."""

    def follow(data: bytes) -> None:
        one(data)
        other(data)

    return follow


@asynccontextmanager
async def open_call_lines(out: TextIO | None = None) -> AsyncIterator[CallLines]:
    """Lines that are written to *out*, or stdout, until the end of the block."""
    lines, stream = CallLines(), out or sys.stdout

    def write() -> None:
        while (line := lines.lines.get()) is not None:
            try:
                stream.write(line.decode() + "\n")
                if lines.lines.empty():
                    stream.flush()
            except (OSError, ValueError):
                call_lines_lost.inc()  # nobody reads any more

    # A daemon: a reader that stands still must not keep the process.
    writer = threading.Thread(target=write, name="lines of calls", daemon=True)
    writer.start()
    try:
        yield lines
    finally:
        with suppress(queue.Full):
            lines.lines.put_nowait(None)
        await asyncio.to_thread(writer.join, LAST)
