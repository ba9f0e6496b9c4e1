"""How often functions of an app may be called on this node: a bucket of tokens for each app with a limit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from prometheus_client import Counter

from shared_models import invoke_policy
from shared_models.app import App
from shared_models.errors import RateLimited
from shared_models.invoke_policy import Rate
from shared_models.telemetry import REGISTRY
from shared_models.workers import ALONE, Place

MAX_APPS = 1000
"""Apps that are counted apart; those that come later share one series."""
SIZE = 10_000
"""Apps whose buckets are kept; of more, the tenth that has not been called for longest starts anew."""

_limited = Counter(
    "fn_rate_limited",
    "Calls that were answered 429 because their app was called too often, by app",
    ("app",),
    registry=REGISTRY,
)
_counted: set[str] = set()


class Bucket:
    """Fills with *rate*; each call takes one token."""

    __slots__ = ("_tokens", "rate", "seen")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = rate.burst
        self.seen = now

    def take(self, now: float) -> float:
        """0 when the call may come, else the seconds until one may."""
        self._fill(now)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate.per_second

    def change(self, rate: Rate, now: float) -> None:
        """From now on *rate* holds; nobody gets a full bucket by it."""
        self._fill(now)
        self._tokens = min(self._tokens, rate.burst)
        self.rate = rate

    def _fill(self, now: float) -> None:
        self._tokens = min(self.rate.burst, self._tokens + (now - self.seen) * self.rate.per_second)
        self.seen = now


class _Known:
    """The bucket of an app as it was when *app* was seen; None without a limit."""

    __slots__ = ("app", "bucket")

    def __init__(self, app: App, bucket: Bucket | None) -> None:
        self.app = app
        self.bucket = bucket

    @property
    def seen(self) -> float:
        """When it was called last; an app without a limit loses nothing when it is forgotten."""
        return self.bucket.seen if self.bucket else -math.inf


class Rates:
    """Of the worker at *place*, who has its part of what the node takes.

    *default* in calls a second, 0: no limit.
    """

    def __init__(
        self, default: float, place: Place = ALONE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._default = default
        self._place = place
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def has_room(self, app: App) -> bool:
        """Whether *app* has room for one more call, which is counted then."""
        bucket = self._bucket(app)
        return bucket is None or not bucket.take(self._clock())

    def count(self, app: App) -> None:
        """As ``has_room``; raises RateLimited where there is none."""
        bucket = self._bucket(app)
        if bucket is None or not (wait := bucket.take(self._clock())):
            return
        _limited.labels(_label(app.name)).inc()
        rate = invoke_policy.rate(app.annotations, self._default) or bucket.rate
        raise RateLimited(app.name, rate.per_second, rate.burst, wait)

    def _bucket(self, app: App) -> Bucket | None:
        known = self._known.get(app.id)
        if known is None or known.app is not app:
            known = self._known[app.id] = _Known(app, self._made(app, known.bucket if known else None))
            if len(self._known) > SIZE:
                self._forget_some()
        return known.bucket

    def _made(self, app: App, before: Bucket | None) -> Bucket | None:
        rate = invoke_policy.rate(app.annotations, self._default)
        if rate is None:
            return None
        part = self._part(rate)
        if before is None:
            return Bucket(part, self._clock())
        if before.rate != part:
            before.change(part, self._clock())
        return before

    def _part(self, rate: Rate) -> Rate:
        """One call at once is the least: connections stay with the worker that has accepted them."""
        workers = self._place.count
        burst, left = divmod(rate.burst, workers)
        return Rate(rate.per_second / workers, max(burst + (self._place.number < left), 1.0))

    def _forget_some(self) -> None:
        # Many at once, so that a call costs nothing for it.
        found = sorted(self._known, key=lambda app_id: self._known[app_id].seen)
        for app_id in found[: SIZE // 10 or 1]:
            del self._known[app_id]


def _label(name: str) -> str:
    if name in _counted or len(_counted) < MAX_APPS:
        _counted.add(name)
        return name
    return "other"
