"""Logs of attempts that were repeated: kept beside that of the last attempt, and read before it."""

from __future__ import annotations

MOST = 1000
"""The last attempt whose log is kept; a function can have no more."""
_APART = 1 << 20
"""Pieces that the log of one attempt may have."""


def first_piece(attempt: int) -> int:
    """The number of the first piece of its log: below zero, where those of the last attempt begin."""
    return (attempt - 1 - MOST) * _APART


def attempt_of(piece: int) -> int:
    """The attempt that a *piece* below zero is of."""
    return piece // _APART + MOST + 1


def line(attempt: int, before: bytes) -> bytes:
    """What names an attempt in front of its log; *before* is the end of what comes before it."""
    begun = b"\n" if before and not before.endswith(b"\n") else b""
    return begun + b"--- attempt %d ---\n" % attempt
