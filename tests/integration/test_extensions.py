"""Extensions from installed packages, on real nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from deploy.extensions import ExtensionFailed, Extensions, chosen, open_extensions, paths_clash
from deploy.nodes import node
from deploy.settings import read_all
from shared_models.extensions import Extension, Node
from shared_models.listeners import Listeners
from tests.integration.extension_packages import install

CODE = """
from aiohttp import web
from contextlib import asynccontextmanager
from shared_models.errors import Conflict
from shared_models.extensions import Extension
from shared_models.web import json_response

seen = []

def middleware(name):
    @web.middleware
    async def layer(request, handler):
        if f"refuse-{name}" in request.headers:
            raise Conflict(f"{name} says no")
        if f"break-{name}" in request.headers:
            raise ZeroDivisionError("a bug of the extension")
        response = await handler(request)
        response.headers.add("Layers", name)
        return response
    return layer

async def hello(request):
    return json_response({"hello": request.match_info["name"]})

async def fail(request):
    raise Conflict("not this way")

def plain(node):
    return Extension(
        api_middlewares=(middleware("api-one"), middleware("api-two")),
        root_middlewares=(middleware("root"),),
        endpoints=(web.get("/hello/{name}", hello), web.post("/v1/fail", fail)),
    )

@asynccontextmanager
async def opened(node):
    seen.append(("open", node.type, node.datastore is not None))
    yield Extension()
    seen.append("closed")

def clashing(node):
    return Extension(endpoints=(web.get("/v2/apps/{name}", hello),))

def broken(node):
    raise RuntimeError("no configuration")

def wrong(node):
    return {"endpoints": []}

def undecorated(node):
    async def layer(request, handler): ...
    return Extension(root_middlewares=(layer,))

def not_listening(node):
    return Extension(app_listeners=(object(),))
"""


Installer = Callable[..., None]


@pytest.fixture
def announce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    """Installs the package ``the_module`` for this process, announcing the given extensions."""

    def announced(**entries: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        install(folder, "the_module", CODE, **entries)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "the_module", raising=False)

    return announced


@asynccontextmanager
async def running(folder: Path, **environ: str) -> AsyncIterator[aiohttp.ClientSession]:
    settings, _ = read_all(
        {
            "FN_PORT": "0",
            "FN_HOST": "127.0.0.1",
            "FN_DB_URL": f"sqlite:///{folder}/fn.db",
            "FN_MQ_URL": "memory://",
            **environ,
        },
        "api",
    )
    async with node(settings) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        yield client


async def test_middlewares_are_around_their_part_of_the_paths(tmp_path: Path, announce: Installer):
    announce(plain="the_module:plain")
    inside_first = ["api-two", "api-one", "root"]
    async with running(tmp_path) as client:
        for path, layers in (
            ("/v2/apps", inside_first),
            ("/v1/apps", inside_first),
            ("/v2/apps/unknown", inside_first),
            ("/v2/nowhere", inside_first),
            ("/v1/runner/async", ["root"]),
            ("/r/app/route", ["root"]),
            ("/", ["root"]),
            ("/nowhere", ["root"]),
        ):
            async with client.get(path) as answer:
                assert answer.headers.getall("Layers") == layers, path


async def test_a_middleware_refuses_in_the_words_of_its_error(
    tmp_path: Path, announce: Installer, caplog: pytest.LogCaptureFixture
):
    announce(plain="the_module:plain")
    async with running(tmp_path) as client:
        async with client.get("/v2/apps", headers={"refuse-root": "x"}) as answer:
            assert answer.status == 409
            assert await answer.json() == {"message": "root says no"}
        async with client.get("/v1/apps", headers={"refuse-api-two": "x"}) as answer:
            assert answer.status == 409
            assert await answer.json() == {"error": {"message": "api-two says no"}}
        async with client.get("/v2/apps", headers={"break-api-one": "x"}) as answer:
            assert answer.status == 500
            assert await answer.json() == {"message": "internal server error"}
    assert "a bug of the extension" in caplog.text


async def test_endpoints_are_served_beside_ours_with_our_errors(tmp_path: Path, announce: Installer):
    announce(plain="the_module:plain")
    async with running(tmp_path) as client:
        async with client.get("/hello/world") as answer:
            assert await answer.json() == {"hello": "world"}
        async with client.post("/v1/fail") as answer:
            assert answer.status == 409
            assert await answer.json() == {"error": {"message": "not this way"}}


async def test_what_an_extension_opens_is_closed_with_the_node(tmp_path: Path, announce: Installer):
    announce(opened="the_module:opened")
    async with running(tmp_path):
        import the_module

        assert the_module.seen == [("open", "api", True)]
    assert the_module.seen == [("open", "api", True), "closed"]


async def test_an_endpoint_of_ours_cannot_be_taken(tmp_path: Path, announce: Installer):
    announce(thief="the_module:clashing")
    with pytest.raises(ExtensionFailed) as failure:
        async with running(tmp_path):
            pass
    assert str(failure.value) == (
        "extension thief: its endpoint GET /v2/apps/{name} clashes with GET /v2/apps/{app_id} of this node"
    )


@pytest.mark.parametrize(
    ("points_at", "reason"),
    [
        ("the_module:broken", "RuntimeError: no configuration"),
        ("the_module:wrong", "TypeError: gave dict instead of an Extension"),
        ("the_module:missing", "AttributeError: module 'the_module' has no attribute 'missing'"),
        ("no_such_module:x", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("the_module:undecorated", "root_middlewares: .* is not decorated with aiohttp.web.middleware"),
        ("the_module:not_listening", "app_listeners: .* is not a Listener"),
    ],
)
async def test_an_extension_that_cannot_be_used_keeps_the_node_from_starting(
    announce: Installer, points_at: str, reason: str
):
    announce(bad=points_at)
    with pytest.raises(ExtensionFailed, match=f"extension bad .{points_at}. cannot be used: .*{reason}"):
        async with open_extensions((), Node(type="api"), Listeners()):
            pass


def test_extensions_are_chosen_by_name(announce: Installer):
    announce(a="the_module:plain", b="the_module:opened")
    assert [point.name for point in chosen(())] == ["a", "b"]
    assert [point.name for point in chosen(("b", "a", "b"))] == ["b", "a"]
    assert chosen(("none",)) == []
    with pytest.raises(ExtensionFailed, match=r"FN_EXTENSIONS names it.*installed: a, b"):
        chosen(("c",))


async def test_extensions_that_want_the_same_endpoint_are_refused():
    async def hello(request: web.Request) -> web.StreamResponse:
        raise AssertionError

    one, two = (Extension(endpoints=(web.get(path, hello),)) for path in ("/x/{a}", "/x/b"))
    with pytest.raises(ExtensionFailed, match=r"extension two: .* GET /x/b clashes .* of extension one"):
        Extensions({"one": one, "two": two}).endpoints([])


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("/v2/apps", "/v2/apps", True),
        ("/v2/apps", "/v2/apples", False),
        ("/v2/apps/{id}", "/v2/apps/special", True),
        ("/v2/apps/{id}", "/v2/apps/{name}/stats", False),
        ("/v1/apps/{app:[^/]*}/routes", "/v1/apps/{app}/stats", False),
        ("/v1/apps/{app:[^/]*}/routes", "/v1/apps/{name}/routes", True),
        ("/v1/{path:.*}", "/v1/anything/at/all", True),
        ("/v1/{path:.*}", "/v2/anything", False),
        ("/t/{app}{source:(?:/.*)?}", "/t/mine/too", True),
        ("/t/{app}{source:(?:/.*)?}", "/trail", False),
    ],
)
def test_patterns_clash_when_a_path_may_match_both(one: str, other: str, clash: bool):
    assert paths_clash(one, other) is clash
    assert paths_clash(other, one) is clash


# -- a real process --------------------------------------------------------------------------------


def _node(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy", *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(folder),
            "FN_PORT": "0",
            "FN_HOST": "127.0.0.1",
            "FN_LOG_LEVEL": "error",
            "FN_RUNNER_TOKEN": "sesame",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("node_type", ["api", "runner", "full"])
def test_a_node_with_a_broken_extension_ends_with_one_line(tmp_path: Path, node_type: str):
    install(tmp_path, "the_module", CODE, bad="the_module:broken")
    environ = {"FN_RUNNER_API_URL": "http://127.0.0.1:1"} if node_type == "runner" else {}
    ended = _node(tmp_path, node_type, **environ)
    assert ended.returncode == 1
    assert ended.stderr == (
        "fn-node: extension bad (the_module:broken) cannot be used: RuntimeError: no configuration\n"
    )


def test_fn_node_config_shows_what_would_be_loaded(tmp_path: Path):
    install(tmp_path, "the_module", CODE, good="the_module:plain")
    assert "the_module:plain (the_module 1.0)" in _node(tmp_path, "config", "api").stdout
    assert "! extension typo: FN_EXTENSIONS names it" in (
        _node(tmp_path, "config", "api", FN_EXTENSIONS="typo").stdout
    )
    assert "(none)" in _node(tmp_path, "config", "api", FN_EXTENSIONS="none").stdout
