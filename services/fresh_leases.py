"""Leases that this node gave a moment ago, and which are all there yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from shared_models.call import LeasedCall, LeaseKey

HARDLY_BEGUN = 0.1
"""Part of a lease's time that may have passed."""


class FreshLeases:
    """Leases of *ttl* seconds; *clock* is the stores', by which they run out (unix seconds).

    Times are short: they must be so by the loop's clock, too, which nobody sets.
    """

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self._for = ttl * HARDLY_BEGUN
        self._clock = clock
        self._given: dict[LeaseKey, tuple[float, float]] = {}

    def __contains__(self, key: LeaseKey) -> bool:
        given = self._given.get(key)
        return given is not None and self._is_fresh(given)

    def given(self, leased: Iterable[LeasedCall]) -> None:
        """These are, from now on."""
        now = _loop_time(), self._clock()
        while self._given and not self._is_fresh(self._given[oldest := next(iter(self._given))]):
            del self._given[oldest]
        for one in leased:
            if one.lease:
                self._given[one.key] = now

    def _is_fresh(self, given: tuple[float, float]) -> bool:
        passed = _loop_time() - given[0], self._clock() - given[1]
        return all(0.0 <= seconds < self._for for seconds in passed)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
