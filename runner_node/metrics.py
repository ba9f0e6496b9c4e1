"""What a runner node counts of each function's calls and containers, in Fn's names (0.3.484).

    fn_calls, fn_queued, fn_running, fn_completed, fn_failed, fn_timeouts, fn_errors       calls
    fn_container_{wait,start,idle,busy}_total and ..._duration_seconds, fn_container_done_total

and, in names of our own, what becomes of results and leases: ``fn_runner_...``.

Counting happens on the way of every call, so it is plain additions on the event loop; Prometheus'
words for it are made when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Counter, Gauge
from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from shared_models.telemetry import REGISTRY

BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Upper bounds of the durations' buckets, in seconds."""
_BOUND_TEXTS = (*map(str, BOUNDS), "+Inf")
MAX_SERIES = 1000
"""Functions that are counted apart; those that come later share one series."""
OTHER = "other"
LABELS = ("fn_appname", "fn_path")


class Spent:
    """How often a state of containers was left, and how many seconds were spent in it."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    @property
    def total(self) -> int:
        return sum(self.buckets)

    def add(self, seconds: float) -> None:
        """One container spent *seconds*."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus has them: upper bound, and how many were no longer."""
        counts, so_far = [], 0
        for bound, count in zip(_BOUND_TEXTS, self.buckets, strict=True):
            so_far += count
            counts.append((bound, float(so_far)))
        return counts


class Series:
    """The counts of one function.

    *calls* were taken on; *queued* wait for a container and *running* have one, at this moment;
    *completed* and *failed* ended so, *timeouts* are among the latter; *errors* got no container.
    """

    __slots__ = (
        "busy", "calls", "cold", "completed", "done", "errors", "failed", "idle", "queued", "running",
        "start", "timeouts", "wait",
    )  # fmt: skip

    def __init__(self) -> None:
        self.calls = 0
        self.queued = 0
        self.running = 0
        self.completed = 0
        self.failed = 0
        self.timeouts = 0
        self.errors = 0
        self.done = 0
        """Containers that are gone."""
        self.cold = 0
        """Calls that waited for a container to start."""
        self.wait = Spent()
        """Of the longest waiting call, until a container was begun for it."""
        self.start = Spent()
        self.idle = Spent()
        self.busy = Spent()


_known: dict[tuple[str, str], Series] = {}


def series_of(app_name: str, path: str) -> Series:
    """The series of a route by its path, or of a function by its name, in the app of that name."""
    found = _known.get((app_name, path))
    if found is None:
        key = (app_name, path) if len(_known) < MAX_SERIES else (OTHER, OTHER)
        found = _known.setdefault(key, Series())
    return found


_CALLS: Mapping[str, tuple[str, Callable[[Series], int]]] = {
    "fn_calls": ("Calls taken on", lambda series: series.calls),
    "fn_queued": ("Calls that wait for a container", lambda series: series.queued),
    "fn_running": ("Calls that run", lambda series: series.running),
    "fn_completed": ("Calls that ended well", lambda series: series.completed),
    "fn_failed": ("Calls that failed, timeouts among them", lambda series: series.failed),
    "fn_timeouts": ("Calls that timed out", lambda series: series.timeouts),
    "fn_errors": ("Calls that got no container", lambda series: series.errors),
}
_STATES: Mapping[str, Callable[[Series], Spent]] = {
    "wait": lambda series: series.wait,
    "start": lambda series: series.start,
    "idle": lambda series: series.idle,
    "busy": lambda series: series.busy,
}


class _Functions(Collector):
    """All series, for Prometheus."""

    def collect(self) -> Iterator[Metric]:
        for name, (text, count) in _CALLS.items():
            # Fn says neither gauge nor counter of these.
            untyped = UnknownMetricFamily(name, text, labels=LABELS)
            for labels, series in _known.items():
                untyped.add_metric(labels, count(series))
            yield untyped
        for state, spent_by in _STATES.items():
            name = f"fn_container_{state}"
            total = CounterMetricFamily(name, f"Times that containers were in {state}", labels=LABELS)
            lasted = HistogramMetricFamily(
                f"{name}_duration_seconds", f"Seconds that containers were in {state}", labels=LABELS
            )
            for labels, series in _known.items():
                spent = spent_by(series)
                total.add_metric(labels, spent.total)
                lasted.add_metric(labels, spent.cumulative(), spent.seconds)
            yield total
            yield lasted
        done = CounterMetricFamily("fn_container_done", "Containers that are gone", labels=LABELS)
        for labels, series in _known.items():
            done.add_metric(labels, series.done)
        yield done
        cold = CounterMetricFamily(
            "fn_runner_cold_calls", "Calls that waited for a container to start", labels=LABELS
        )
        for labels, series in _known.items():
            cold.add_metric(labels, series.cold)
        yield cold


functions = _Functions()
REGISTRY.register(functions)

results_refused = Counter(
    "fn_runner_results_refused",
    "Results that an API node did not take: the call was cancelled, or is somebody else's",
    registry=REGISTRY,
)
results_dropped = Counter(
    "fn_runner_results_dropped",
    "Results that were lost because buffer and spool were full, or the API node could not read them",
    registry=REGISTRY,
)
leases_lost = Counter(
    "fn_runner_leases_lost",
    "Leases that were no longer this runner's when it renewed them",
    registry=REGISTRY,
)
call_lines_lost = Counter(
    "fn_runner_call_lines_lost",
    "Lines of functions that could not be written to stdout (FN_LOG_CALLS)",
    registry=REGISTRY,
)
secrets_missing = Counter(
    "fn_runner_secrets_missing",
    "Containers that were not started because a secret is not to be had: FN_SECRETS_PATH is not set "
    "(no_folder), the file cannot be read (unreadable), or it cannot be a variable (unusable)",
    ("reason",),
    registry=REGISTRY,
)
spool_bytes = Gauge("fn_runner_spool_bytes", "Size of the folder of results in bytes", registry=REGISTRY)
warm_wanted = Gauge(
    "fn_runner_warm_wanted", "Containers that functions want to be kept ready", registry=REGISTRY
)
warm_ready = Gauge("fn_runner_warm_ready", "Those of them that are there", registry=REGISTRY)
