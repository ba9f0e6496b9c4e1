"""What a function says on stdout, on its way to the one who waits for its answer. No I/O."""

from __future__ import annotations

from collections import deque

from runner_node.drivers.contract import Sink

HELD = 65536
"""Bytes held back beyond which no more is to be read."""


class Talk:
    """Passes pieces on to *sink*, or holds them back while ``paused``; then ``b""`` once, at the end.

    Who feeds it looks at ``held`` (bytes) and stops reading in time. Without a sink all is dropped.
    """

    def __init__(self, sink: Sink | None) -> None:
        self.paused = False
        self.held = 0
        self._sink = sink
        self._pieces: deque[bytes] = deque()
        self._ending = False
        self._told = False

    def feed(self, piece: bytes) -> None:
        """The next piece; an empty one is none."""
        if piece and self._sink and not self._ending:
            self._pieces.append(piece)
            self.held += len(piece)
            self._flush()

    def end(self) -> None:
        """There is no more; said to the sink behind what is held back."""
        self._ending = True
        self._flush()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._flush()

    def close(self) -> None:
        """Ends it now; what is held back is dropped."""
        self._pieces.clear()
        self.held = 0
        self.paused = False
        self.end()

    def _flush(self) -> None:
        # The sink may pause, resume or close in the middle of this.
        while self._sink and self._pieces and not self.paused:
            piece = self._pieces.popleft()
            self.held -= len(piece)
            self._sink(piece)
        if self._sink and self._ending and not (self._told or self.paused or self._pieces):
            self._told = True
            self._sink(b"")
