"""What was found of tokens a moment ago: to check a signature costs as much as a call."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from services.identity.tokens import digest

T = TypeVar("T")


class Remembered(Generic[T]):
    """Of *most* tokens, by their digests. Times in unix seconds."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[bytes, tuple[T, float, int]] = OrderedDict()
        """Each until when, and by which version of the keys."""

    def get(self, token: str, version: int, now: float) -> T | None:
        """What was put for *token* while the keys had this *version*."""
        found, until, by = self._found.get(digest(token), (None, 0.0, 0))
        return found if now < until and by == version else None

    def put(self, token: str, found: T, until: float, version: int) -> None:
        """The oldest one makes room."""
        self._found[digest(token)] = found, until, version
        if len(self._found) > self._most:
            self._found.popitem(last=False)
