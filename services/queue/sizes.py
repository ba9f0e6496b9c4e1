"""Answers of a server that are not too large: payloads may be, a few hundred together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

BYTES_AT_ONCE = 8 * 1024 * 1024
"""Of payloads, in one answer of a server, unless the first alone has more."""


def portions(sizes: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Names in their order, as many at a time as their sizes in bytes allow."""
    names: list[str] = []
    total = 0
    for name, size in sizes:
        if names and total + size > BYTES_AT_ONCE:
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    if names:
        yield names
