"""How late the event loop is: what holds it back holds every request back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Histogram

from shared_models.background import beside
from shared_models.telemetry import REGISTRY

EVERY = 1.0
"""Seconds between two looks."""

lag = Histogram(
    "fn_loop_lag_seconds",
    "How much later than asked the event loop came back, looked at once a second",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    registry=REGISTRY,
)


@asynccontextmanager
async def watching_loop() -> AsyncIterator[None]:
    """Looks until the end of the block."""
    async with beside(_watch(), "event loop lag"):
        yield


async def _watch() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY
        await asyncio.sleep(EVERY)
        lag.observe(max(loop.time() - due, 0.0))
