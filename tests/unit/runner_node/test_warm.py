"""What API nodes want ready, seen to by an agent on a clock that jumps."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from runner_node.agent import Agent, running_agent
from runner_node.images_ahead import MOST, PAUSES
from runner_node.settings import AgentSettings
from runner_node.warm import ASK, LOOK, part_of
from shared_models import errors
from shared_models.app import App
from shared_models.image_policy import MISSING
from shared_models.route import Route
from shared_models.runner import HEARTBEAT, RunnerState
from shared_models.wanted import Wanted, WarmTarget, version_of
from tests.unit.runner_node.scripted_data import ScriptedData
from tests.unit.runner_node.simulation import MIB, SimDriver, now, simulated

SOON = 1.2 * ASK + 2 * LOOK + 1.0
"""Seconds after which what has changed is seen to."""


class Registry(SimDriver):
    """Notes when which image was asked for; each takes *pull_time* seconds, and those in *missing* fail."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.pulls: list[tuple[float, str]] = []
        self.missing: dict[str, errors.FnError] = {}
        self.pull_time = 0.0
        self.pulling = self.most_pulling = 0

    async def ensure_image(self, image: str, pull: str = MISSING) -> None:
        self.pulls.append((now(), image))
        self.pulling += 1
        self.most_pulling = max(self.most_pulling, self.pulling)
        try:
            await asyncio.sleep(self.pull_time)
            if image in self.missing:
                raise self.missing[image]
        finally:
            self.pulling -= 1

    def times(self, image: str) -> list[float]:
        return [at for at, asked in self.pulls if asked == image]


class Rig:
    """An agent, and what an API node says."""

    def __init__(self, agent: Agent, data: ScriptedData, driver: Registry) -> None:
        self.agent = agent
        self.data = data
        self.driver = driver

    def wants(self, count: int = 1, *, version: int = 1, path: str = "/r", format_: str = "json") -> None:
        """From now on *count* containers of a route in this version, whose image is ``/r:version``."""
        at = f"2027-01-15T08:00:0{version}.000Z"
        app = App(id="app", name="app", updated_at="a")
        self.data.apps["app"] = app
        self.data.routes["app", path] = Route(
            app_id="app", path=path, image=f"{path}:{version}", memory=128, type="sync", format=format_,
            timeout=30, idle_timeout=30, updated_at=at,
        )  # fmt: skip
        one = WarmTarget(app_id="app", path=path, count=count, version=version_of(at, "a"))
        self.data.wants = Wanted(warm=[one], cursor="c1")

    def images(self, *images: str) -> None:
        self.data.wants = Wanted(images=list(images), cursor="c1")

    @property
    def alive(self) -> dict[str, int]:
        return dict(+self.driver.alive)


@asynccontextmanager
async def rig(**settings: object) -> AsyncIterator[Rig]:
    data, driver = ScriptedData(), Registry()
    values = {"max_memory": 2048 * MIB, "max_cpus": 10_000, "spool_path": "", "freeze_idle": 1e6, **settings}
    async with running_agent(data, driver, AgentSettings(**values), "node") as agent:
        yield Rig(agent, data, driver)


@simulated
async def test_what_is_to_be_warm_is_kept_and_follows_its_function() -> None:
    async with rig() as r:
        r.wants(2)
        await asyncio.sleep(SOON)
        assert r.alive == {"/r:1": 2}
        r.wants(3, version=2)
        await asyncio.sleep(SOON)
        assert r.alive == {"/r:2": 3}
        r.wants(1, version=2)
        await asyncio.sleep(SOON + 62)
        assert r.alive == {"/r:2": 1}
        r.data.wants = Wanted(cursor="c1")
        await asyncio.sleep(SOON + 62)
        assert r.alive == {}


@simulated
async def test_one_that_does_not_change_is_looked_up_once() -> None:
    async with rig() as r:
        r.wants(1)
        await asyncio.sleep(300)
        assert r.data.asked["route"] == 1
        assert 300 / (1.3 * ASK) < r.data.asked["wanted"] < 300 / (0.7 * ASK)


@simulated
async def test_one_that_has_changed_again_since_it_was_told_is_looked_up_once_more() -> None:
    async with rig() as r:
        r.wants(1, version=2)
        newer = r.data.routes["app", "/r"]
        told = r.data.wants
        r.wants(1, version=1)
        r.data.wants = told
        await asyncio.sleep(SOON)
        assert r.alive == {"/r:1": 1}
        r.data.routes["app", "/r"] = newer
        await asyncio.sleep(SOON)
        assert r.alive == {"/r:2": 1}


@simulated
async def test_a_version_that_a_call_has_seen_first_is_the_one_that_is_kept() -> None:
    async with rig() as r:
        r.wants(1)
        await asyncio.sleep(SOON)
        told = r.data.wants
        r.wants(1, version=2)
        r.data.wants = told
        route, app = r.data.routes["app", "/r"], r.data.apps["app"]
        r.agent.route_target(route, app, "json")
        await asyncio.sleep(SOON)
        assert r.alive == {"/r:2": 1}


@simulated
async def test_what_was_wanted_last_is_kept_while_no_api_node_answers_or_one_is_too_old() -> None:
    async with rig() as r:
        r.wants(1)
        await asyncio.sleep(SOON)
        r.data.wants = None
        await asyncio.sleep(100)
        assert r.alive == {"/r:1": 1}
        r.data.away = True
        await asyncio.sleep(100)
        [container] = r.agent.scheduler._pool.owners
        container.retire()
        await asyncio.sleep(SOON)
        assert r.alive == {"/r:1": 1}


@simulated
async def test_a_route_whose_format_has_a_container_for_each_call_is_not_kept() -> None:
    async with rig() as r:
        r.wants(1, format_="default")
        await asyncio.sleep(SOON)
        assert r.alive == {}
        assert not r.driver.starts


@simulated
async def test_a_function_that_is_gone_holds_up_no_other() -> None:
    async with rig() as r:
        r.wants(1)
        assert r.data.wants is not None
        gone = WarmTarget(app_id="app", path="/gone", version="1")
        r.data.wants = msgspec.structs.replace(r.data.wants, warm=[gone, *r.data.wants.warm])
        await asyncio.sleep(SOON)
        assert r.alive == {"/r:1": 1}


@simulated
async def test_a_node_that_drains_keeps_and_fetches_nothing() -> None:
    async with rig() as r:
        r.wants(2)
        await asyncio.sleep(SOON)
        r.data.state = RunnerState.DRAINING
        await asyncio.sleep(HEARTBEAT + SOON)
        r.data.wants = Wanted(images=["new"], warm=r.data.wants.warm if r.data.wants else [])
        await asyncio.sleep(62)
        assert r.alive == {}
        assert r.driver.times("new") == []
        r.data.state = RunnerState.ACTIVE
        await asyncio.sleep(HEARTBEAT + SOON)
        assert r.alive == {"/r:1": 2}
        assert len(r.driver.times("new")) == 1


@simulated
async def test_images_are_fetched_once_and_one_after_the_other() -> None:
    async with rig() as r:
        r.driver.pull_time = 10.0
        r.images("one", "two", "one", "three")
        await asyncio.sleep(300)
        assert [image for _, image in r.driver.pulls] == ["one", "two", "three"]
        assert r.driver.most_pulling == 1
        r.images("three", "four")
        await asyncio.sleep(SOON)
        assert r.driver.pulls[-1][1] == "four"


@simulated
async def test_as_many_images_are_fetched_at_once_as_is_set() -> None:
    async with rig(images_ahead=3) as r:
        r.driver.pull_time = 10.0
        r.images(*(f"image{number}" for number in range(9)))
        await asyncio.sleep(SOON + 30)
        assert (len(r.driver.pulls), r.driver.most_pulling) == (9, 3)
    async with rig(images_ahead=0) as r:
        r.images("one")
        await asyncio.sleep(60)
        assert r.driver.pulls == []


@simulated
async def test_an_image_that_cannot_be_fetched_is_tried_again_and_then_left_to_its_first_call(
) -> None:  # fmt: skip
    async with rig() as r:
        r.driver.missing["bad"] = errors.ImagePullFailed("bad", "no such image", 404)
        r.images("bad", "good")
        await asyncio.sleep(SOON)
        assert len(r.driver.times("good")) == 1
        await asyncio.sleep(10_000)
        tries = r.driver.times("bad")
        pauses = [round(later - at) for at, later in itertools.pairwise(tries)]
        assert pauses == [round(pause) for pause in PAUSES]


@simulated
async def test_an_image_is_fetched_when_an_engine_that_was_away_answers_again() -> None:
    async with rig() as r:
        r.driver.missing["image"] = errors.EngineUnavailable()
        r.images("image")
        await asyncio.sleep(10_000)
        del r.driver.missing["image"]
        await asyncio.sleep(2 * PAUSES[0])
        tries = len(r.driver.times("image"))
        await asyncio.sleep(1000)
        assert len(r.driver.times("image")) == tries


@simulated
async def test_what_waits_to_be_fetched_is_bounded() -> None:
    async with rig() as r:
        r.driver.pull_time = 1000.0
        for start in range(0, 2 * MOST, 100):
            r.images(*(f"image{number}" for number in range(start, start + 100)))
            await asyncio.sleep(SOON)
        r.driver.pull_time = 0.0
        assert len(r.driver.pulls) == 1
        await asyncio.sleep(2000)
        assert len({image for _, image in r.driver.pulls}) <= MOST + 200


@simulated
async def test_more_changes_are_asked_for_at_once() -> None:
    async with rig() as r:
        r.data.wants = Wanted(images=["a"], cursor="c1", more=True)
        await asyncio.sleep(ASK)
        assert r.data.asked["wanted"] > 10
        r.data.wants = Wanted(cursor="c2")
        await asyncio.sleep(SOON)
        assert (r.data.since[0], r.data.since[1], r.data.since[-1]) == ("", "c1", "c2")


@pytest.mark.parametrize(("amount", "count"), [(0, 1), (5, 1), (1, 4), (7, 3), (8, 2)])
def test_workers_keep_together_what_one_would_keep(amount: int, count: int) -> None:
    parts = Counter(part_of(amount, number, count) for number in range(count))
    assert sum(size * many for size, many in parts.items()) == amount
    assert max(parts) - min(parts) <= 1
