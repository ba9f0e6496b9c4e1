"""How often functions of an app may be called on this node: a bucket of tokens for each app with a limit."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from prometheus_client import Counter

from shared_models import invoke_policy
from shared_models.app import App
from shared_models.errors import RateLimited
from shared_models.invoke_policy import Rate
from shared_models.telemetry import REGISTRY

MAX_APPS = 1000
"""Apps that are counted apart; those that come later share one series."""
SIZE = 10_000
"""Apps whose buckets are kept."""

_limited = Counter(
    "fn_rate_limited",
    "Calls that were answered 429 because their app was called too often, by app",
    ("app",),
    registry=REGISTRY,
)
_counted: set[str] = set()


class Bucket:
    """Fills with *rate*; each call takes one token."""

    __slots__ = ("_seen", "_tokens", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = rate.burst
        self._seen = now

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
        self._tokens = min(self.rate.burst, self._tokens + (now - self._seen) * self.rate.per_second)
        self._seen = now


class _Known:
    """The bucket of an app as it was when *app* was seen; None without a limit."""

    __slots__ = ("app", "bucket")

    def __init__(self, app: App, bucket: Bucket | None) -> None:
        self.app = app
        self.bucket = bucket


class Rates:
    """Of one worker, who has its part of what the node takes. *default* in calls a second, 0: no limit."""

    def __init__(self, default: float, workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._default = default
        self._workers = workers
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()

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
        rate = bucket.rate
        raise RateLimited(app.name, rate.per_second * self._workers, rate.burst * self._workers, wait)

    def _bucket(self, app: App) -> Bucket | None:
        known = self._known.get(app.id)
        if known is None or known.app is not app:
            known = self._known[app.id] = _Known(app, self._made(app, known.bucket if known else None))
            if len(self._known) > SIZE:
                self._known.popitem(last=False)
        return known.bucket

    def _made(self, app: App, before: Bucket | None) -> Bucket | None:
        rate = invoke_policy.rate(app.annotations, self._default)
        if rate is None:
            return None
        part = Rate(rate.per_second / self._workers, max(rate.burst / self._workers, 1.0))
        if before is None:
            return Bucket(part, self._clock())
        if before.rate != part:
            before.change(part, self._clock())
        return before


def _label(name: str) -> str:
    if name in _counted or len(_counted) < MAX_APPS:
        _counted.add(name)
        return name
    return "other"
