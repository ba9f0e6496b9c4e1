"""fn-node copy, from one live node to another."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from deploy.__main__ import main
from deploy.copy import Order, run
from shared_models.app import App
from tests.integration.live_api import live_api
from tests.servers.ports import free_port

FNS = 105
"""More than one page of them."""


@asynccontextmanager
async def two(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    async with live_api(tmp_path / "old") as old, live_api(tmp_path / "new") as new:
        await filled(old)
        yield old, new


async def filled(api):
    app = await api.json("POST", "/v2/apps", json={"name": "shop", "config": {"A": "1"}})
    for number in range(FNS):
        body = {"app_id": app["id"], "name": f"f{number:03}", "image": "some/image:1"}
        fn = await api.json("POST", "/v2/fns", json=body)
    body = {"app_id": app["id"], "fn_id": fn["id"], "name": "t", "type": "http", "source": "/t"}
    await api.json("POST", "/v2/triggers", json=body)
    route = {"path": "/a/b", "image": "some/image:2", "headers": {"X-A": ["1", "2"]}, "cpus": "500m"}
    await api.json("POST", "/v1/apps/shop/routes", json={"route": route})


async def copied(old, new, **options):
    """The exit code and the lines of a copy."""
    lines = []
    order = Order(source=old.base_url, target=new.base_url, **options)
    return await asyncio.to_thread(run, order, lines.append), lines


async def listed(api, kind):
    [app] = (await api.json("GET", "/v2/apps"))["items"]
    path = f"/v2/{kind}" if kind != "routes" else "/v1/apps/shop/routes"
    return await api.json("GET", path, params={"app_id": app["id"], "per_page": "100"})


async def test_what_a_server_has_is_made_once(tmp_path):
    async with two(tmp_path) as (old, new):
        code, lines = await copied(old, new, ids=str(tmp_path / "ids.json"))
        assert (code, lines[-1]) == (0, f"{FNS + 3} made. Calls and their logs are not copied.")
        assert "trigger shop/f104/t: made" in lines
        [route] = (await listed(new, "routes"))["routes"]
        assert (route["headers"], route["cpus"]) == ({"X-A": ["1", "2"]}, "500m")
        [trigger] = (await listed(new, "triggers"))["items"]
        [before] = (await listed(old, "triggers"))["items"]
        ids = json.loads((tmp_path / "ids.json").read_text())
        assert len(ids) == FNS
        assert ids[before["fn_id"]] == trigger["fn_id"]
        code, lines = await copied(old, new)
        assert (code, lines[-1]) == (0, f"{FNS + 3} same. Calls and their logs are not copied.")
        assert [trigger] == (await listed(new, "triggers"))["items"]


async def test_what_differs_is_named_and_changed_only_when_told_to(tmp_path):
    async with two(tmp_path) as (old, new):
        await copied(old, new)
        [app] = (await new.json("GET", "/v2/apps"))["items"]
        await new.json("PUT", f"/v2/apps/{app['id']}", json={"config": {"A": "2", "B": "mine"}})
        await new.json("PATCH", "/v1/apps/shop/routes/a/b", json={"route": {"memory": 256}})
        code, lines = await copied(old, new)
        assert code == 1
        assert "app shop: differs: config A (--overwrite changes it)" in lines
        assert "route shop/a/b: differs: memory (--overwrite changes it)" in lines
        code, lines = await copied(old, new, overwrite=True)
        assert code == 0
        assert "app shop: changed: config A" in lines
        [app] = (await new.json("GET", "/v2/apps"))["items"]
        assert app["config"] == {"A": "1", "B": "mine"}
        assert (await listed(new, "routes"))["routes"][0]["memory"] == 128


async def test_a_check_changes_nothing_and_tells_what_is_missing(tmp_path):
    async with two(tmp_path) as (old, new):
        code, lines = await copied(old, new, check=True)
        assert (code, lines[0]) == (1, "app shop: to be made")
        assert lines[-1].startswith(f"{FNS + 3} to be made.")
        assert (await new.json("GET", "/v2/apps"))["items"] == []


async def test_a_hidden_value_is_left_out_until_somebody_sets_it(tmp_path):
    async with two(tmp_path) as (old, new):
        [app] = (await old.json("GET", "/v2/apps"))["items"]
        hide = {"config": {"KEY": "geheim"}, "annotations": {"fn.hybrid/secret/KEY": True}}
        await old.json("PUT", f"/v2/apps/{app['id']}", json=hide)
        code, lines = await copied(old, new)
        line = "app shop: config KEY: left out: the source hides its value: set it yourself"
        assert code == 1
        assert line in lines
        [app] = (await new.json("GET", "/v2/apps"))["items"]
        assert app["config"] == {"A": "1"}
        await new.json("PUT", f"/v2/apps/{app['id']}", json={"config": {"KEY": "geheim"}})
        assert (await copied(old, new))[0] == 0


async def test_an_app_that_is_refused_is_named_and_others_are_copied(tmp_path):
    async with two(tmp_path) as (old, new):
        syslog = App(name="a-first", syslog_url="tls://logs.example:1")
        await old.stores.datastore.insert_app(syslog)
        long = App(name="a-" + "x" * 40, syslog_url="tls://logs.example:1")
        await old.stores.datastore.insert_app(long)
        code, lines = await copied(old, new, apps=(long.name, "none", syslog.name))
        assert code == 1
        assert lines[0].startswith(f"app {long.name}: failed: 400 ")
        assert lines[2] == "app none: failed: the source has none of this name"
        assert lines[3] == "app a-first: made"


async def test_a_server_that_is_away_or_is_none_of_fn_is_named(tmp_path):
    (tmp_path / "new").mkdir()
    async with live_api(tmp_path / "new") as new:
        away = f"http://127.0.0.1:{free_port()}"
        lines = []
        order = Order(source=away, target=new.base_url)
        assert await asyncio.to_thread(run, order, lines.append) == 1
        assert lines[0].startswith(f"copy: failed: {away} does not answer")
        order = Order(source=f"{new.base_url}/nothing", target=new.base_url)
        assert await asyncio.to_thread(run, order, lines.append) == 1
        assert "has neither /v2/apps nor /v1/apps" in lines[2]


@pytest.mark.parametrize("url", ["fn:8080", "http://", "http://new/"])
def test_addresses_that_cannot_be_are_bad_arguments(url, capsys):
    assert main(["copy", "--from", url, "--to", "http://new"]) == 2
    assert "--from" in capsys.readouterr().err
