"""Pulls: one at a time per image, repeated only where that can help. The engine is a scripted HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from runner_node.drivers import images
from runner_node.drivers.docker import open_docker
from runner_node.drivers.settings import DriverSettings
from shared_models import errors
from shared_models.telemetry import REGISTRY
from tests.servers import app as app_server


class ScriptedEngine:
    """Answers each pull with the next of *pulls*: a status and a body; a pull that works brings the image."""

    def __init__(self, *pulls: tuple[int, dict[str, object]]) -> None:
        self.pulls = list(pulls)
        self.asked: list[str] = []
        self.there = False
        self.looks = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41"})

    async def containers(self, request: web.Request) -> web.Response:
        return web.json_response([])

    async def image(self, request: web.Request) -> web.Response:
        self.looks += 1
        if self.there:
            return web.json_response({"Config": {"Volumes": None}})
        return web.json_response({"message": "No such image: x"}, status=404)

    async def pull(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.query['fromImage']}:{request.query['tag']}")
        await self.may_answer.wait()
        status, body = self.pulls.pop(0)
        self.there = status == 200 and "error" not in body
        return web.Response(status=status, text=json.dumps(body), content_type="application/json")


@asynccontextmanager
async def serving(engine: ScriptedEngine) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/version", engine.version)
    app.router.add_get("/{v}/containers/json", engine.containers)
    app.router.add_get("/{v}/images/{name:.+}/json", engine.image)
    app.router.add_post("/{v}/images/create", engine.pull)
    async with app_server.serving(app) as address:
        yield f"tcp://{address}"


@asynccontextmanager
async def ensuring(engine: ScriptedEngine) -> AsyncIterator[DriverSettings]:
    async with serving(engine) as host:
        yield DriverSettings(docker_host=host, engine_timeout=10.0, pull_timeout=10.0)


async def ensure(engine: ScriptedEngine, image: str = "reg.example/me/fn:2") -> None:
    async with ensuring(engine) as settings, open_docker(settings, "n1") as driver:
        await driver.ensure_image(image)


PULLED: tuple[int, dict[str, object]] = (200, {"status": "Downloaded"})


async def test_what_the_engine_says_of_a_pull_is_counted_while_it_is_under_way() -> None:
    def running() -> float | None:
        return REGISTRY.get_sample_value("fn_runner_image_pulls_running")

    def ended() -> float:
        return REGISTRY.get_sample_value("fn_runner_image_pulls_total", {"result": "success"}) or 0.0

    before = ended()
    engine = ScriptedEngine((200, {"status": "Downloading", "id": "a", "progressDetail": {"total": 7}}))
    engine.may_answer.clear()
    async with ensuring(engine) as settings, open_docker(settings, "n1") as driver, asyncio.timeout(60):
        pull = asyncio.create_task(driver.ensure_image("reg.example/me/fn:2"))
        while not engine.asked:
            await asyncio.sleep(0.01)
        assert running() == 1
        engine.may_answer.set()
        await pull
        assert (running(), ended()) == (0, before + 1)
        await driver.ensure_image("reg.example/me/fn:2")
        assert ended() == before + 1, "nothing was pulled"


async def test_a_missing_image_is_pulled_once_for_all_who_ask() -> None:
    engine = ScriptedEngine(PULLED)
    engine.may_answer.clear()
    async with ensuring(engine) as settings, open_docker(settings, "n1") as driver, asyncio.timeout(60):
        asked = [asyncio.create_task(driver.ensure_image("me/fn")) for _ in range(5)]
        while not engine.asked:
            await asyncio.sleep(0.001)
        asked[0].cancel()
        engine.may_answer.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert engine.asked == ["me/fn:latest"]
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [None] * 4


async def test_an_image_that_is_there_is_not_pulled() -> None:
    engine = ScriptedEngine()
    engine.there = True
    await ensure(engine)
    assert engine.asked == []


async def test_an_image_that_is_there_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine()
    engine.there = True
    async with ensuring(engine) as settings, open_docker(settings, "n1") as driver, asyncio.timeout(10):
        for _ in range(3):
            await driver.ensure_image("fn:1")
        assert engine.looks == 1
        monkeypatch.setattr(images, "FRESH", -1.0)
        engine.there = False
        await driver.ensure_image("fn:1")  # believed, and looked for behind that
        while engine.looks < 2:
            await asyncio.sleep(0.001)
        engine.pulls.append(PULLED)
        while not engine.asked:
            await driver.ensure_image("fn:1")
            await asyncio.sleep(0.001)
        assert engine.asked == ["fn:1"]


async def test_a_temporary_failure_is_tried_again() -> None:
    engine = ScriptedEngine((500, {"message": "try later"}), (200, {"error": "connection reset"}), PULLED)
    await ensure(engine)
    assert engine.asked == ["reg.example/me/fn:2"] * 3


async def test_a_failure_that_lasts_is_told_with_its_cause() -> None:
    engine = ScriptedEngine(*[(500, {"message": "dial tcp: connection refused"})] * 3)
    with pytest.raises(errors.ImagePullFailed) as caught:
        await ensure(engine, "fn:1")
    assert caught.value.message == "Failed to pull image 'fn:1': dial tcp: connection refused"
    assert caught.value.code == 502
    assert len(engine.asked) == 3


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((404, {"message": "manifest unknown"}), 404),
        ((200, {"error": "denied", "errorDetail": {"code": 401, "message": "denied"}}), 401),
    ],
)
async def test_a_refusal_is_final_and_keeps_the_registrys_status(
    answer: tuple[int, dict[str, object]], code: int
) -> None:
    engine = ScriptedEngine(answer)
    with pytest.raises(errors.ImagePullFailed) as caught:
        await ensure(engine)
    assert caught.value.code == code
    assert len(engine.asked) == 1
