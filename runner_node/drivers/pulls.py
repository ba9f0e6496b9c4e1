"""Pulls of images that are under way, and what became of earlier ones: counted for ``/metrics``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared_models.telemetry import REGISTRY

log = logging.getLogger(__name__)

BOUNDS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Upper bounds of the durations' buckets, in seconds."""
TELL = 10.0
"""Seconds between two lines of the log about a pull that takes long."""
_MB = 1e6
_THERE = ("Pull complete", "Already exists")

pulls = Counter(
    "fn_runner_image_pulls",
    "Pulls of images that ended, tries of one pull counted as one",
    ("result",),
    registry=REGISTRY,
)
_seconds = Histogram(
    "fn_runner_image_pull_duration_seconds",
    "Seconds that pulls of images took which succeeded",
    buckets=BOUNDS,
    registry=REGISTRY,
)
_SUCCEEDED, _FAILED = pulls.labels("success"), pulls.labels("failure")


class Progress:
    """One pull under way. ``note`` may be called in a thread of its own."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.digest = ""
        """By which the registry knows what was pulled, once the engine has said it."""
        self.since = time.monotonic()
        self._told = self.since
        self._bytes: dict[str, tuple[int, int]] = {}
        self._there: set[str] = set()
        self._layers: set[str] = set()

    def note(self, message: Mapping[str, Any]) -> None:
        """*message* is what a Docker-compatible engine says of one layer."""
        layer, status = str(message.get("id") or ""), str(message.get("status") or "")
        if status.startswith("Digest: "):
            self.digest = status.removeprefix("Digest: ")
        if not layer or status.startswith("Pulling from"):
            return
        self._layers.add(layer)
        detail = message.get("progressDetail") or {}
        if status == "Downloading" and isinstance(total := detail.get("total"), int):
            self._bytes[layer] = int(detail.get("current") or 0), total
        elif status in ("Download complete", *_THERE) and layer in self._bytes:
            self._bytes[layer] = (self._bytes[layer][1],) * 2
        if status in _THERE:
            self._there.add(layer)
        if time.monotonic() - self._told >= TELL:
            self._told = time.monotonic()
            (done, total), (there, layers) = self.bytes, self.layers
            log.info(
                "pulling image %s for %.0f s: %.0f of %.0f MB, %d of %d layers",
                self.image, self._told - self.since, done / _MB, total / _MB, there, layers,
            )  # fmt: skip

    @property
    def bytes(self) -> tuple[int, int]:
        """Those that are here, and all that the engine has announced so far."""
        known = list(self._bytes.values())
        return sum(done for done, _ in known), sum(total for _, total in known)

    @property
    def layers(self) -> tuple[int, int]:
        """Those that are unpacked, and all that are known."""
        return len(self._there), len(self._layers)


_under_way: set[Progress] = set()


@contextmanager
def pulling(image: str) -> Iterator[Progress]:
    """Counts what happens in the block as one pull of *image*; one that is given up has no result."""
    progress = Progress(image)
    _under_way.add(progress)
    try:
        yield progress
    except Exception:
        _FAILED.inc()
        raise
    else:
        seconds = time.monotonic() - progress.since
        _SUCCEEDED.inc()
        _seconds.observe(seconds)
        digest = f", digest {progress.digest}" if progress.digest else ""
        log.info("image %s is there after %.1f s%s", image, seconds, digest)
    finally:
        _under_way.discard(progress)


class _UnderWay(Collector):
    """What is under way when somebody asks."""

    def collect(self) -> Iterator[Metric]:
        now = list(_under_way)
        running = GaugeMetricFamily("fn_runner_image_pulls_running", "Pulls of images that are under way")
        running.add_metric((), len(now))
        yield running
        since = GaugeMetricFamily(
            "fn_runner_image_pull_oldest_seconds", "Seconds that the oldest of them has taken so far"
        )
        since.add_metric((), max((time.monotonic() - one.since for one in now), default=0.0))
        yield since
        for name, what, found in (
            ("bytes", "Bytes of them", [one.bytes for one in now]),
            ("layers", "Layers of their images", [one.layers for one in now]),
        ):
            family = GaugeMetricFamily(
                f"fn_runner_image_pull_{name}", f"{what}: all that are known, and done", labels=("state",)
            )
            family.add_metric(("done",), sum(done for done, _ in found))
            family.add_metric(("known",), sum(known for _, known in found))
            yield family


REGISTRY.register(_UnderWay())
