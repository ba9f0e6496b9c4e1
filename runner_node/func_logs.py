"""What one call wrote to stdout and stderr, bounded."""

from __future__ import annotations

from collections.abc import Callable


class CallLog:
    """Keeps the first *limit* bytes (0: all) and then says that there were more.

    *follower* gets all that is written, as it comes, and ``b""`` at the end.
    """

    __slots__ = ("_follower", "_full", "_limit", "_pieces", "_size", "closed")

    def __init__(self, limit: int, follower: Callable[[bytes], None] | None = None) -> None:
        self._follower = follower
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._full = False
        self.closed = False
        """The call's record is on its way: what comes now belongs to nobody."""

    @property
    def size(self) -> int:
        """Bytes that are kept, about."""
        return min(self._size, self._limit) if self._limit else self._size

    def write(self, data: bytes) -> None:
        """Takes a piece; what is beyond the limit is dropped."""
        if self.closed or not data:
            return
        if self._follower:
            self._follower(data)
        if self._full:
            return
        if self._limit and self._size + len(data) >= self._limit:
            room = self._limit - self._size
            self._pieces.append(data[:room])
            # Fn says so too when the log is exactly as long as the limit: it cannot know that no more comes.
            self._pieces.append(b"\n-----max log size %d bytes exceeded, truncating log-----\n" % self._limit)
            self._full = True
        else:
            self._pieces.append(data)
        self._size += len(data)

    def close(self) -> bytes:
        """All that was kept; nothing is taken any more."""
        if self._follower and not self.closed:
            self._follower(b"")
        self.closed = True
        return b"".join(self._pieces)
