"""The frames in which an engine sends a container's output: no I/O, cut anywhere.

Each frame has a head of eight bytes - the stream (1 stdout, 2 stderr), three zeros, the length of what
follows, big endian - and then the output itself (Docker Engine API, "Attach to a container").
"""

from __future__ import annotations

from collections.abc import Iterator

HEAD = 8


class Frames:
    """Takes pieces of the stream; gives the output in them, stdout and stderr alike, in order."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Stream and output of what *data* has. Must be consumed before the next piece is fed."""
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                yield self._stream, piece
                continue
            wanted = HEAD - len(self._head)
            self._head += data[at : at + wanted]
            at += wanted
            if len(self._head) == HEAD:
                self._stream = self._head[0]
                self._left = int.from_bytes(self._head[4:], "big")
                self._head = b""
