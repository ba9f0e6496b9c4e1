"""The image cleaner and engines in trouble. The engine is a scripted HTTP server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from runner_node.drivers import engine as engine_module
from runner_node.drivers import image_cleaner
from runner_node.drivers.credentials import Credentials
from runner_node.drivers.engine import open_engine
from runner_node.drivers.image_cleaner import ImageCleaner
from runner_node.drivers.image_use import ImageUse, Pulled
from runner_node.drivers.images import Images
from runner_node.drivers.settings import DriverSettings
from shared_models.telemetry import REGISTRY
from tests.servers.app import serving


class ScriptedEngine:
    """Has images of 100 bytes each, and answers as it is told."""

    def __init__(self, *names: str) -> None:
        self.has = dict.fromkeys(names, 100)
        self.refuses: dict[str, int] = {}
        self.usage_status = 200
        self.asked_for_usage = 0
        self.hangs = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked_to_remove: list[str] = []
        self.looks = 0
        self.removes = asyncio.Event()
        self.may_remove = asyncio.Event()
        self.may_remove.set()

    async def images(self, request: web.Request) -> web.Response:
        self.hangs.set()
        await self.may_answer.wait()
        return web.json_response([{"Id": name, "RepoTags": [name], "Size": 100} for name in self.has])

    async def usage(self, request: web.Request) -> web.Response:
        self.asked_for_usage += 1
        usage = {"LayersSize": 100 * len(self.has), "message": "no such thing"}
        return web.json_response(usage, status=self.usage_status)

    async def containers(self, request: web.Request) -> web.Response:
        return web.json_response([])

    async def image(self, request: web.Request) -> web.Response:
        self.looks += 1
        return web.json_response({"Id": request.match_info["name"]})

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41"})

    async def remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.asked_to_remove.append(name)
        self.removes.set()
        await self.may_remove.wait()
        if status := self.refuses.get(name):
            return web.json_response({"message": f"no {name}"}, status=status)
        del self.has[name]
        return web.json_response([])


@asynccontextmanager
async def cleaner_of(
    engine: ScriptedEngine, folder: Path | None, high: int = 150
) -> AsyncIterator[tuple[ImageCleaner, Images]]:
    """All images of *engine* were pulled here, in their order, an hour ago."""
    app = web.Application()
    app.router.add_get("/version", engine.version)
    app.router.add_get("/images/json", engine.images)
    app.router.add_get("/system/df", engine.usage)
    app.router.add_get("/containers/json", engine.containers)
    app.router.add_get("/{v}/images/{name}/json", engine.image)
    app.router.add_delete("/images/{name}", engine.remove)
    use = ImageUse(on=True)
    then = time.time() - 3600
    names = {f"docker.io/library/{name}" for name in engine.has}
    use.learn({name: Pulled(names, then + number) for number, name in enumerate(engine.has)})
    async with serving(app) as address:
        settings = DriverSettings(
            docker_host=f"tcp://{address}", image_clean_max_size=high, image_record=str(folder or "")
        )
        try:
            with open_engine(settings.docker_host, 1.0) as opened:
                images = Images(opened, 10.0, Credentials(), use)
                yield ImageCleaner(opened, images, settings, set), images
                await images.close()
        finally:
            engine.may_answer.set()


def recorded(folder: Path) -> list[str]:
    """Ids in the only record there."""
    (file,) = folder.glob("*.json")
    return list(json.loads(file.read_text())["images"])


def failures() -> float:
    return REGISTRY.get_sample_value("fn_runner_image_clean_failures_total") or 0.0


async def test_an_engine_that_hangs_costs_a_look_and_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine, before = ScriptedEngine("a:1", "b:1"), failures()
    async with cleaner_of(engine, tmp_path) as (cleaner, images), asyncio.timeout(60):
        monkeypatch.setattr(engine_module, "GRACE", -0.5)
        engine.may_answer.clear()
        look = asyncio.create_task(cleaner.look())
        await engine.hangs.wait()
        monkeypatch.setattr(engine_module, "GRACE", 20.0)
        await images.ensure("a:1")
        assert not await look
        assert failures() - before == 1
        assert "images cannot be looked at" in caplog.text
        engine.may_answer.set()
        assert await cleaner.look()
        assert engine.has == {"a:1": 100}, "it was used a moment ago"


async def test_an_image_that_was_asked_for_a_moment_ago_may_be_starting_and_stays_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = ScriptedEngine("a:1", "b:1")
    async with cleaner_of(engine, tmp_path, high=1) as (cleaner, images), asyncio.timeout(60):
        for name in ("a:1", "b:1"):
            await images.ensure(name)
        assert not await cleaner.look()
        assert engine.asked_to_remove == []
        assert "more than FN_IMAGE_CLEAN_MAX_SIZE" not in caplog.text
        monkeypatch.setattr(image_cleaner, "STARTS", 0.0)
        engine.refuses["b:1"] = 409
        assert not await cleaner.look()
        assert engine.asked_to_remove == ["a:1", "b:1"]
        assert "more than FN_IMAGE_CLEAN_MAX_SIZE=1" in caplog.text


@pytest.mark.parametrize(("status", "counted"), [(409, 0), (404, 0), (500, 1)])
async def test_an_image_that_the_engine_keeps_is_passed_over(
    tmp_path: Path, status: int, counted: int
) -> None:
    engine, before = ScriptedEngine("a:1", "b:1", "c:1"), failures()
    engine.refuses["a:1"] = status
    async with cleaner_of(engine, tmp_path, high=250) as (cleaner, _), asyncio.timeout(60):
        assert await cleaner.look()
    assert engine.asked_to_remove == ["a:1", "b:1"]
    assert list(engine.has) == ["a:1", "c:1"]
    assert failures() - before == counted


@pytest.mark.parametrize("status", [409, 500, 503])
async def test_an_engine_too_busy_to_tell_of_shared_layers_is_asked_again_and_nothing_goes(
    tmp_path: Path, status: int
) -> None:
    engine, before = ScriptedEngine("a:1", "b:1", "c:1"), failures()
    engine.usage_status = status
    async with cleaner_of(engine, tmp_path, high=250) as (cleaner, _), asyncio.timeout(60):
        assert not await cleaner.look()
        assert list(engine.has) == ["a:1", "b:1", "c:1"]
        assert failures() - before == 1
        engine.usage_status = 200
        assert await cleaner.look()
    assert list(engine.has) == ["b:1", "c:1"]


async def test_without_a_word_of_shared_layers_sizes_are_added_up(tmp_path: Path) -> None:
    engine = ScriptedEngine("a:1", "b:1", "c:1")
    engine.usage_status = 403
    async with cleaner_of(engine, tmp_path, high=250) as (cleaner, _), asyncio.timeout(60):
        assert await cleaner.look()
    assert list(engine.has) == ["b:1", "c:1"]


async def test_between_the_marks_nothing_goes_and_above_the_high_one_all_down_to_the_low_one(
    tmp_path: Path,
) -> None:
    engine = ScriptedEngine("a:1", "b:1", "c:1")
    async with cleaner_of(engine, tmp_path, high=300) as (cleaner, _), asyncio.timeout(60):
        assert await cleaner.look()
        assert list(engine.has) == ["a:1", "b:1", "c:1"]
        assert not engine.asked_for_usage, "an engine may look through all of its volumes for that"
    async with cleaner_of(engine, tmp_path / "lower", high=240) as (cleaner, _), asyncio.timeout(60):
        assert await cleaner.look()
        assert list(engine.has) == ["c:1"]


@pytest.mark.parametrize("away", [False, True])
async def test_without_a_record_it_cleans_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, away: bool
) -> None:
    """None is wanted; or there is a file where its folder would be, as on a file system that is read-only."""
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "below" if away else None
    engine = ScriptedEngine("a:1", "b:1")
    async with cleaner_of(engine, folder) as (cleaner, _), asyncio.timeout(60):
        for _ in range(2):
            await cleaner.remember()
        assert await cleaner.look()
    assert list(engine.has) == ["b:1"]
    assert caplog.text.count("cannot be kept in FN_IMAGE_RECORD_PATH") == away


async def test_an_image_that_others_removed_is_forgotten_and_theirs_when_it_comes_back(
    tmp_path: Path,
) -> None:
    engine = ScriptedEngine("a:1", "b:1")
    async with cleaner_of(engine, tmp_path) as (cleaner, _), asyncio.timeout(60):
        await cleaner.remember()
        del engine.has["a:1"]
        assert await cleaner.look()
        await cleaner.remember()
        assert list(cleaner._use.pulled) == ["b:1"]
    assert recorded(tmp_path) == ["b:1"]


async def test_the_loop_looks_again_by_itself_when_it_could_not_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cleaner, "AGAIN", 0.01)
    engine = ScriptedEngine("a:1", "b:1")
    engine.refuses = {"a:1": 409, "b:1": 409}
    async with cleaner_of(engine, tmp_path) as (cleaner, _), asyncio.timeout(60):
        loop = asyncio.create_task(cleaner.clean())
        while len(engine.asked_to_remove) < 6:
            await asyncio.sleep(0.01)
        assert not cleaner.pulse.reason()
        engine.refuses.clear()
        while len(engine.has) > 1:
            await asyncio.sleep(0.01)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def test_who_finds_an_image_removed_while_it_was_believed_to_be_there_looks_again(
    tmp_path: Path,
) -> None:
    engine = ScriptedEngine("a:1")
    async with cleaner_of(engine, tmp_path) as (_, images), asyncio.timeout(60):
        await images.ensure("a:1")
        images.forget(["a:1"])
        assert await images.again("a:1")
        assert await images.again("a:1"), "it may be removed again, between the look and the start"
        assert not await images.again("never:1")


async def test_who_sees_an_image_while_it_is_being_removed_looks_again_behind_that(tmp_path: Path) -> None:
    engine = ScriptedEngine("a:1", "b:1")
    async with cleaner_of(engine, tmp_path) as (cleaner, images), asyncio.timeout(60):
        engine.may_remove.clear()
        images.use.seen("a:1", "a:1")
        look = asyncio.create_task(cleaner.look())
        await engine.removes.wait()
        await images.ensure("a:1")
        assert engine.looks == 1
        engine.may_remove.set()
        assert await look
        await images.ensure("a:1")
        assert engine.looks == 2


async def test_while_another_worker_cleans_the_engine_is_left_to_it(tmp_path: Path) -> None:
    engine = ScriptedEngine("a:1", "b:1")
    async with cleaner_of(engine, tmp_path) as (cleaner, _), asyncio.timeout(60):
        assert cleaner._record
        lock = cleaner._record.alone()
        assert lock
        assert not await cleaner.look()
        assert not engine.hangs.is_set(), "it was not asked"
        lock.close()
        assert await cleaner.look()
        assert engine.asked_to_remove == ["a:1"]
