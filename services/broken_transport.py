"""The event loop's own word for a connection that closed under a driver's hands."""

from __future__ import annotations


def is_closed_transport(exc: BaseException) -> bool:
    """Whether *exc* is what uvloop raises, a bare RuntimeError, when a closed transport is used."""
    return isinstance(exc, RuntimeError) and "the handler is closed" in str(exc)
