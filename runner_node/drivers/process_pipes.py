"""The node's end of a process's output."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
from collections.abc import Callable

from runner_node.drivers.contract import Sink

PIECE = 65536


class OutputPipe:
    """Owns *fd*, the reading end of a pipe; passes what comes on to *sink*, and then calls *on_end*."""

    def __init__(self, fd: int, sink: Sink, on_end: Callable[[], object] = lambda: None) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._sink = sink
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def pause(self) -> None:
        """Reads no more: the writer waits once the pipe is full."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._read)

    def drain(self) -> None:
        """Reads what is in the pipe now, and no more than that."""
        if self._fd < 0:
            return
        waiting = array.array("i", [0])
        fcntl.ioctl(self._fd, termios.FIONREAD, waiting)
        left = waiting[0]
        while left > 0 and self._fd >= 0 and (data := os.read(self._fd, left)):
            left -= len(data)
            self._sink(data)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, PIECE)
        except BlockingIOError:
            return
        if data:
            self._sink(data)
        else:
            self.close()
            self._on_end()
