"""gzip undone in pieces, so that little of what comes out is held at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from shared_models import errors

PIECE = 128 << 10
"""Bytes that come out at a time."""


class Gunzip:
    """For one body, of any number of members; *limit* in bytes of what comes out, 0 for none.

    Nothing at all is nothing, as an answer to HEAD may be.
    """

    __slots__ = ("_inflater", "_limit", "_size")

    def __init__(self, limit: int = 0) -> None:
        self._inflater: zlib._Decompress | None = None
        self._limit = limit
        self._size = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What *data*, the next part of the body, holds; raises a BadFunction: not gzip, or too large."""
        while data:
            inflater = self._inflater = self._inflater or zlib.decompressobj(16 + zlib.MAX_WBITS)
            plain = self._next(inflater, data)
            while plain:
                yield plain
                plain = b"" if inflater.eof else self._next(inflater, inflater.unconsumed_tail)
            data = inflater.unused_data
            if inflater.eof:
                self._inflater = None

    def end(self) -> None:
        """The body has ended; raises FunctionResponseError when that is too early."""
        if self._inflater is not None:
            raise errors.FunctionResponseError(detail="not gzip: it ends too early")

    def _next(self, inflater: zlib._Decompress, data: bytes) -> bytes:
        try:
            plain = inflater.decompress(data, PIECE)
        except zlib.error as exc:
            raise errors.FunctionResponseError(detail=f"not gzip: {exc}") from None
        self._size += len(plain)
        if self._limit and self._size > self._limit:
            raise errors.FunctionResponseTooLarge
        return plain
