"""Marks in a container's output: written behind what the function wrote, taken out again where we read it.

An engine hands output on in its own time, so that a function's answer may be here before the line which
it wrote first. Where the container's processes can be seen from this node, the runner writes a mark into
the container's own pipes: what comes before the mark was written before it. Elsewhere nothing is marked.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

STDOUT, STDERR = 1, 2
_PROC = Path("/proc")


class Marks:
    """Finds expected marks in output that comes in any pieces, stream by stream. No I/O."""

    def __init__(self) -> None:
        self._wanted: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
        self._held = {STDOUT: b"", STDERR: b""}

    def expect(self, mark: bytes, streams: tuple[int, ...] = (STDOUT, STDERR)) -> None:
        """*mark* will come once in each of *streams*."""
        for stream in streams:
            self._wanted[stream].append(mark)

    def forget(self, mark: bytes, stream: int) -> None:
        """*mark* was not written to *stream* after all, nor to one behind it."""
        for later in range(stream, STDERR + 1):
            if mark in self._wanted[later]:
                self._wanted[later].remove(mark)

    def missing(self, mark: bytes) -> bool:
        """Whether *mark* has yet to come in some stream."""
        return any(mark in wanted for wanted in self._wanted.values())

    def feed(self, stream: int, piece: bytes) -> bytes:
        """*piece*, and what was held back before it, without marks; the beginning of one is held back."""
        wanted, held = self._wanted.get(stream), self._held.get(stream)
        if not wanted and not held:
            return piece
        wanted = wanted or []
        data = (held or b"") + piece
        for mark in list(wanted):
            at = data.find(mark)
            if at >= 0:
                data = data[:at] + data[at + len(mark) :]
                wanted.remove(mark)
        keep = _beginning(data, wanted)
        self._held[stream] = data[len(data) - keep :]
        return data[: len(data) - keep]


def _beginning(data: bytes, marks: list[bytes]) -> int:
    """How many bytes at the end of *data* may be the beginning of one of *marks*."""
    longest = 0
    for mark in marks:
        for size in range(min(len(mark) - 1, len(data)), longest, -1):
            if data.endswith(mark[:size]):
                longest = size
                break
    return longest


def new_mark() -> bytes:
    """Bytes that no function writes by chance or can know; one write of them is never torn apart."""
    return b"\0fn-mark:%b\0" % secrets.token_hex(12).encode()


def reachable(pid: int, container: str) -> bool:
    """Whether process *pid* as we see it is the engine's *container* (a full id), with pipes we may open.

    An engine on another machine, or in another process namespace, has other numbers: the process's
    control group must name the container.
    """
    try:
        groups = (_PROC / str(pid) / "cgroup").read_text()
        pipes = [os.readlink(_PROC / str(pid) / "fd" / str(stream)) for stream in (STDOUT, STDERR)]
    except OSError:
        return False
    return container in groups and all(pipe.startswith("pipe:") for pipe in pipes)


def write(pid: int, stream: int, mark: bytes) -> bool:
    """Writes *mark* into a stream of process *pid*; False when it has ended or its pipe is full.

    The pipe is opened for this one write: held open, it would hide from the engine that the container
    has closed it.
    """
    try:
        pipe = os.open(_PROC / str(pid) / "fd" / str(stream), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(pipe, mark) == len(mark)
    except OSError:
        return False
    finally:
        os.close(pipe)
