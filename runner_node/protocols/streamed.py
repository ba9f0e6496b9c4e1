"""The body of an answer that is not collected: what has come of it, and how it is taken out."""

from __future__ import annotations

from collections.abc import Iterable

from runner_node.protocols.gunzip import Gunzip

_EVENTS = "text/event-stream"


class Streamed:
    """Of one answer whose head has come, and whose body has not come whole.

    *arrived* gets what arrives. Once it ``goes``, that is taken out with ``pieces`` as it comes: at once when
    the answer is announced to be larger than *above* bytes, is of events, or is to be unpacked, else when
    that much has arrived or ``go`` is called. *limit* (bytes, 0 for none) is for what is unpacked.
    """

    __slots__ = ("_above", "_arrived", "_inflater", "begun", "goes", "held", "length", "typed")

    def __init__(
        self, arrived: list[bytes], *, above: int, kind: str, length: int | None, gunzip: bool, limit: int
    ) -> None:
        self._arrived = arrived
        self._above = above
        self._inflater = Gunzip(limit) if gunzip else None
        self.held = sum(len(piece) for piece in arrived)
        """Bytes that were not taken out."""
        self.length = None if gunzip else length
        """Bytes of the whole body, if that is known."""
        self.typed = bool(kind)
        """Whether there is a content type."""
        self.begun = False
        """The head was given away: there is no way back."""
        # How large packed bytes will be, nobody knows.
        self.goes = gunzip or (length or 0) > above or kind.lower().startswith(_EVENTS) or self.held > above

    def go(self) -> None:
        """What has come is to be taken out now, and the rest as it comes."""
        self.goes = True

    def arrive(self, size: int) -> None:
        """*size* bytes more have arrived."""
        self.held += size
        if self.held > self._above:
            self.goes = True

    def pieces(self) -> Iterable[bytes]:
        """What has come since the last time, none of it empty; raises a BadFunction as ``Gunzip`` does."""
        body = b"".join(self._arrived)
        self._arrived.clear()
        self.held = 0
        if self._inflater:
            return self._inflater.pieces(body)
        return (body,) if body else ()

    def end(self) -> None:
        """All pieces were taken; raises FunctionResponseError when there should be more."""
        if self._inflater:
            self._inflater.end()
