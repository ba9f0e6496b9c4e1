"""Starts that fail: how long the next one is put off, and what callers are told meanwhile."""

from __future__ import annotations

from shared_models import errors

FIRST = 0.1
LONGEST = 10.0
"""Seconds before the next start after one that failed; doubles with each."""
TELLING = 2
"""Starts that fail in a row before all who wait are told, not only the first in line."""
MEMORY = 60.0
"""Seconds for which failures are remembered after a pause has ended."""
MANY = 1000


class _Failing:
    __slots__ = ("error", "failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0
        self.error: errors.FnError = errors.FnError()

    @property
    def hopeless(self) -> bool:
        """A bad image, or an engine that is away, will be no better for the next in line; a start that
        failed may have been bad luck, unless it happens again."""
        luck = isinstance(self.error, errors.ContainerInitFailed | errors.ContainerInitTimedOut)
        return not luck or self.failures >= TELLING


class Backoff:
    """By the key of what is started; times are those of the event loop, in seconds."""

    def __init__(self) -> None:
        self._failing: dict[bytes, _Failing] = {}

    def failed(self, key: bytes, error: errors.FnError, now: float) -> bool:
        """A start failed; whether all who wait for one are to be told, not only the first."""
        if len(self._failing) >= MANY:
            self._forget(now)
        one = self._failing.setdefault(key, _Failing())
        if one.failures and now > one.until + MEMORY:
            one.failures = 0
        one.failures += 1
        one.error = error
        one.until = now + min(LONGEST, FIRST * 2.0 ** min(one.failures - 1, 10))
        return one.hopeless

    def succeeded(self, key: bytes) -> None:
        """A start went well: all is forgotten."""
        self._failing.pop(key, None)

    def pause(self, key: bytes, now: float) -> float:
        """Seconds until the next start may begin, 0 when that is now."""
        one = self._failing.get(key)
        return max(one.until - now, 0.0) if one else 0.0

    def failing(self, key: bytes) -> bool:
        """Whether the last start failed: the next one is a probe, and goes alone."""
        return key in self._failing

    def verdict(self, key: bytes, now: float) -> errors.FnError | None:
        """What a new caller is told at once instead of waiting, during a pause that is not the first."""
        one = self._failing.get(key)
        return one.error if one and one.failures >= TELLING and now < one.until else None

    def _forget(self, now: float) -> None:
        for key in [key for key, one in self._failing.items() if now > one.until + MEMORY]:
            del self._failing[key]
