from __future__ import annotations

import asyncio
import time

import pytest

from shared_models import loop_lag
from shared_models.telemetry import REGISTRY


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"fn_loop_lag_seconds_{name}", labels) or 0.0


def hold_back() -> None:
    time.sleep(0.5)


async def test_what_holds_the_loop_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "EVERY", 0.01)
    before, seconds = sample("count"), sample("sum")
    async with loop_lag.watching_loop():
        await asyncio.sleep(0)
        hold_back()
        async with asyncio.timeout(30):
            while sample("count") == before:
                await asyncio.sleep(0.01)
    assert sample("sum") - seconds >= 0.4
    after = sample("count")
    await asyncio.sleep(0.05)
    assert sample("count") == after
