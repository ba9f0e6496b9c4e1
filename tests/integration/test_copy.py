"""fn-node copy, from one live node to another."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from deploy.__main__ import main
from deploy.copy import Order, run
from services.identity.opening import open_identity
from services.identity.settings import IdentitySettings
from services.identity.tokens import digest
from shared_models.app import App
from shared_models.http_settings import HTTPSettings
from shared_models.web import serving
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


RECORDED = Path(__file__).parents[1] / "wire" / "scenarios"
TIME = "2018-06-01T00:00:00.000Z"


def recorded(scenario, path, key):
    """The longest list that the original server answered there."""
    steps = json.loads((RECORDED / f"{scenario}.json").read_text())["steps"]
    found = [step["response"].get("json", {}).get(key) for step in steps if step["request"]["path"] == path]
    lists = [one.get("{{unordered}}") if isinstance(one, dict) else one for one in found]
    return max((one for one in lists if one), key=len)


@asynccontextmanager
async def original(lists):
    """Answers *lists* as Fn does: by path, and of one function; notes the tokens that it sees."""
    tokens = []

    async def answer(request):
        tokens.append(request.headers.get("Authorization"))
        if request.path not in lists:
            return web.json_response({"message": "Path not found"}, status=404)
        key, items = lists[request.path]
        fn_id = request.query.get("fn_id", "")
        items = [item for item in items if not fn_id or item["fn_id"] == fn_id]
        return web.json_response({"next_cursor": "", key: items or None})

    bound = HTTPSettings(port=0, host="127.0.0.1")
    async with serving([web.get("/{path:.*}", answer)], bound, node_type="api") as port:
        yield f"http://127.0.0.1:{port}", tokens


async def test_routes_as_the_server_of_2018_lists_them_are_copied(tmp_path):
    routes = recorded("2018-full/v1-routes-crud", "/v1/apps/r1/routes", "routes")
    app = {"id": "{{app_id}}", "name": "r1", "created_at": TIME, "updated_at": TIME}
    lists = {"/v1/apps": ("apps", [app]), "/v1/apps/r1/routes": ("routes", routes)}
    async with original(lists) as (url, _), live_api(tmp_path) as new:
        order, lines = Order(source=url, target=new.base_url), []
        assert await asyncio.to_thread(run, order, lines.append) == 0
        made = (await new.json("GET", "/v1/apps/r1/routes"))["routes"]
        differ = ("app_id", "created_at", "updated_at")
        for one in [*made, *routes]:
            for key in differ:
                del one[key]
        assert made == routes
        assert len(made) == 3


async def test_triggers_as_the_newest_server_lists_them_are_copied_and_it_sees_no_token(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("FN_TOKEN", "for-the-new-side")
    path = "/v2/triggers?app_id={{app_id}}"
    triggers = recorded("head-full/head-triggers-crud", path, "items")
    app = {"id": "{{app_id}}", "name": "ta", "created_at": TIME, "updated_at": TIME}
    fns = [
        {"id": fn_id, "name": f"f{number}", "app_id": app["id"], "image": "some/image:1", "config": None}
        for number, fn_id in enumerate(sorted({trigger["fn_id"] for trigger in triggers}))
    ]
    lists = {
        "/v2/apps": ("items", [app]),
        "/v2/fns": ("items", fns),
        "/v2/triggers": ("items", triggers),
    }
    async with original(lists) as (url, tokens), live_api(tmp_path) as new:
        arguments = ["copy", "--from", url, "--to", new.base_url]
        assert await asyncio.to_thread(main, arguments) == 0
        assert set(tokens) == {None}
        app = (await new.json("GET", "/v2/apps"))["items"][0]
        made = (await new.json("GET", "/v2/triggers", params={"app_id": app["id"]}))["items"]
        sources = {(trigger["name"], trigger["source"]) for trigger in triggers}
        assert {(one["name"], one["source"]) for one in made} == sources
    assert "trigger ta/f0/" in capsys.readouterr().out


async def test_triggers_of_a_function_that_is_refused_are_named(tmp_path):
    app = {"id": "a", "name": "shop"}
    fn = {"id": "f", "name": "f", "app_id": "a", "image": "some/image:1", "memory": 1 << 20}
    trigger = {"id": "t", "name": "t", "app_id": "a", "fn_id": "f", "type": "http", "source": "/t"}
    lists = {
        "/v2/apps": ("items", [app]),
        "/v2/fns": ("items", [fn]),
        "/v2/triggers": ("items", [trigger]),
    }
    async with original(lists) as (url, _), live_api(tmp_path) as new:
        order, lines = Order(source=url, target=new.base_url), []
        assert await asyncio.to_thread(run, order, lines.append) == 1
        assert lines[1].startswith("function shop/f: failed: 400 ")
        assert lines[2] == "trigger shop/f/t: failed: its function is not there"


async def test_the_new_side_sees_the_token_and_one_that_is_unknown_to_it_is_named(
    tmp_path, monkeypatch, capsys
):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"- {{name: me, sha256: '{digest('mine').hex()}', role: developer, apps: '*'}}\n")
    async with (
        original({"/v2/apps": ("items", [{"id": "a", "name": "shop"}]), "/v2/fns": ("items", [])}) as (
            url,
            _,
        ),
        open_identity(IdentitySettings(tokens_path=str(tokens))) as identity,
        live_api(tmp_path, authenticator=identity) as new,
    ):
        arguments = ["copy", "--from", url, "--to", new.base_url]
        monkeypatch.setenv("FN_TOKEN", "another")
        assert await asyncio.to_thread(main, arguments) == 1
        assert "app shop or what is in it: failed: 401 " in capsys.readouterr().out
        monkeypatch.setenv("FN_TOKEN", "mine")
        assert await asyncio.to_thread(main, arguments) == 0
        assert "app shop: made" in capsys.readouterr().out


def test_a_check_that_overwrites_is_a_bad_argument(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["copy", "--from", "http://a", "--to", "http://b", "--check", "--overwrite"])
    assert "not allowed with" in capsys.readouterr().err


async def test_a_map_that_cannot_be_written_is_named(tmp_path, capsys):
    async with live_api(tmp_path) as new, original({"/v2/apps": ("items", [])}) as (url, _):
        arguments = ["copy", "--from", url, "--to", new.base_url, "--map", str(tmp_path / "no" / "ids")]
        assert await asyncio.to_thread(main, arguments) == 1
    assert "ids: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("items", "cause"),
    [([{"id": "a"}], "has no 'name'"), (["shop"], "no list of items"), ("shop", "no list")],
)
async def test_listings_that_are_none_of_fn_are_an_error_with_its_cause(tmp_path, items, cause):
    async def answer(_):
        return web.json_response({"items": items, "apps": None})

    bound = HTTPSettings(port=0, host="127.0.0.1")
    async with serving([web.get("/{path:.*}", answer)], bound, node_type="api") as port:
        order, lines = Order(source=f"http://127.0.0.1:{port}", target="http://127.0.0.1:1"), []
        assert await asyncio.to_thread(run, order, lines.append) == 1
    assert cause in lines[0]
