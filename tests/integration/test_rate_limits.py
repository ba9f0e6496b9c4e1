"""Apps that are called too often: refused in every way, in the words of each API, and nobody else is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shared_models.app import App
from shared_models.telemetry import REGISTRY
from tests.integration.guarded import PRIVATE, WAYS, guarded
from tests.unit.shared_models.test_invoke_policy import notes

SLOW = notes(rate=0.01, burst=5)


def refused() -> float:
    return REGISTRY.get_sample_value("fn_rate_limited_total", {"app": "shop"}) or 0.0


@pytest.mark.parametrize("mark", [{"of_app": SLOW}, {"app_rate_limit": 0.01}], ids=["annotation", "default"])
@pytest.mark.parametrize("way", WAYS)
async def test_calls_beyond_the_burst_are_refused(tmp_path: Path, way: str, mark: dict[str, Any]) -> None:
    async with guarded(tmp_path, **mark) as there:
        before, burst = refused(), 5 if "of_app" in mark else 1
        told = [await there.call(way) for _ in range(burst + 3)]
        good = 202 if way in ("detached", "async route") else 200
        assert [one.status for one in told] == [good] * burst + [429] * 3
        await there.until_seen(burst)
        last = told[-1]
        assert "App shop is called too often: this runner node takes 0.01 calls a second" in last.message
        assert 0 < int(last.headers["Retry-After"]) <= 100
        assert refused() - before == 3
        assert len(there.seen) == burst


async def test_all_ways_of_an_app_share_its_rate(tmp_path: Path) -> None:
    async with guarded(tmp_path, of_app=notes(rate=0.01, burst=len(WAYS))) as there:
        assert all([(await there.call(way)).status in (200, 202) for way in WAYS])
        assert [(await there.call(way)).status for way in WAYS] == [429] * len(WAYS)


async def test_the_fast_path_takes_calls_of_an_app_with_a_rate(tmp_path: Path) -> None:
    async with guarded(tmp_path, of_app=notes(rate=1000, burst=1000)) as there:
        await there.known()
        there.taken.clear()
        for _ in range(20):
            assert (await there.call("fast")).status == 200
        assert len(there.taken) == 20


async def test_many_at_once_get_no_more_than_the_burst(tmp_path: Path) -> None:
    async with guarded(tmp_path, of_app=notes(rate=0.01, burst=50)) as there:
        await there.known()
        there.seen.clear()
        ways = ["fast", "invoke"] * 100
        told = await asyncio.gather(*(there.call(way) for way in ways))
        assert sum(one.status == 200 for one in told) == len(there.seen) == 48, "two were known()'s"


async def test_those_who_are_refused_for_their_token_cost_nothing(tmp_path: Path) -> None:
    async with guarded(tmp_path, of_app={**SLOW, **PRIVATE}) as there:
        for _ in range(10):
            assert (await there.call("invoke", "Bearer eve")).status == 401
            assert (await there.call("fast", "Bearer other")).status == 403
        assert [(await there.call("fast", "Bearer root")).status for _ in range(6)] == [200] * 5 + [429]


async def test_a_rate_can_be_raised_while_calls_come(tmp_path: Path) -> None:
    async with guarded(tmp_path, of_app=SLOW) as there:
        while (await there.call("fast")).status == 200:
            pass
        change = App(annotations=notes(rate=1000, burst=1000))
        await there.api.stores.datastore.update_app(there.app.id, change)
        async with asyncio.timeout(30):
            while (await there.call("fast")).status == 429:
                await asyncio.sleep(0.05)
        assert (await there.call("fast")).status == 200
