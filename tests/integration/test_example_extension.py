"""The example extension, installed as its users install it, on an API node."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from deploy.nodes import node
from deploy.settings import read_all
from shared_models.call import Call
from tests.integration.extension_packages import install

EXAMPLE = Path(__file__).parents[2] / "examples" / "extension"


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[aiohttp.ClientSession]:
    site = tmp_path / "site"
    site.mkdir()
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(
        site,
        "house_rules",
        (EXAMPLE / "house_rules.py").read_text(),
        **project["entry-points"]["fn_hybrid.extensions"],
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "house_rules", raising=False)
    settings, _ = read_all(
        {
            "FN_PORT": "0",
            "FN_HOST": "127.0.0.1",
            "FN_DB_URL": f"sqlite:///{tmp_path}/fn.db",
            "FN_MQ_URL": "memory://",
        },
        "api",
    )
    async with node(settings) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


async def test_an_app_without_a_team_is_refused(client: aiohttp.ClientSession):
    async with client.post("/v2/apps", json={"name": "shop"}) as answer:
        assert answer.status == 400
        assert await answer.json() == {"message": "App name must begin with a team, as in team-app"}
    async with client.post("/v1/apps", json={"app": {"name": "shop"}}) as answer:
        assert answer.status == 400
        assert "team" in (await answer.json())["error"]["message"]
    async with client.get("/v2/apps") as answer:
        assert (await answer.json())["items"] == []


async def test_an_app_is_stamped_with_its_team(client: aiohttp.ClientSession):
    created = {"name": "blue-shop", "annotations": {"mine": 1}}
    async with client.post("/v2/apps", json=created) as answer:
        app = await answer.json()
    assert app["annotations"] == {"mine": 1, "house-rules/team": "blue"}
    async with client.get(f"/v2/apps/{app['id']}") as answer:
        assert (await answer.json())["annotations"] == app["annotations"]


async def test_a_function_needs_an_image_with_a_version(client: aiohttp.ClientSession):
    async with client.post("/v2/apps", json={"name": "blue-shop"}) as answer:
        app = await answer.json()
    fn = {"name": "f", "app_id": app["id"]}
    for image in ("host:5000/cart", "cart:latest"):
        async with client.post("/v2/fns", json={**fn, "image": image}) as answer:
            assert answer.status == 400
    async with client.post("/v2/fns", json={**fn, "image": "cart:1.0"}) as answer:
        assert answer.status == 200
        fn_id = (await answer.json())["id"]
    async with client.put(f"/v2/fns/{fn_id}", json={"image": "cart"}) as answer:
        assert await answer.json() == {"message": "Image cart must have a version, as in cart:1.0"}
    async with client.put(f"/v2/fns/{fn_id}", json={"memory": 64}) as answer:
        assert answer.status == 200


async def test_teams_are_counted_at_an_endpoint_of_its_own(client: aiohttp.ClientSession):
    for name in ("red-a", "blue-a", "blue-b"):
        async with client.post("/v2/apps", json={"name": name}) as answer:
            assert answer.status == 200
    async with client.get("/v2/teams") as answer:
        assert await answer.json() == {"teams": {"blue": 2, "red": 1}}


async def test_answers_of_the_api_are_signed_errors_too(client: aiohttp.ClientSession):
    for path in ("/v2/apps", "/v1/apps/unknown"):
        async with client.get(path) as answer:
            assert answer.headers["House-Rules"] == "in force"
    async with client.get("/version") as answer:
        assert "House-Rules" not in answer.headers


async def test_failed_calls_are_in_the_log(client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture):
    import house_rules

    listener = house_rules.FailedCalls()
    await listener.after_call(Call(id="C1", fn_id="F", status="success"))
    await listener.after_call(Call(id="C2", fn_id="F", status="error", error="exit 1"))
    assert [record.getMessage() for record in caplog.records if record.name == "house_rules"] == [
        "call C2 of function F: exit 1"
    ]


def test_pip_installs_it(tmp_path: Path):
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True, timeout=120)
    shown = subprocess.run(
        [sys.executable, "-m", "deploy", "config", "api"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "house_rules:extension (house-rules 0.1.0)" in shown.stdout
