"""Secret values: hidden from clients, given to runners, absent from the queue, read from files by runners."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from runner_node import calls, secret_files
from runner_node.drivers.contract import Exit
from runner_node.drivers.fake_behaviour import Answer, Behaviour
from runner_node.hot_container import StartFailed
from runner_node.job import route_job
from shared_models import times
from shared_models.app import App
from shared_models.call import Call
from shared_models.ids import new_id
from shared_models.interfaces import Datastore
from shared_models.route import Route
from shared_models.secrets import HIDDEN, MARK
from tests.integration.live_api import live_api
from tests.integration.test_agent import rig, until

SECRET = "s3cret-value"
CONFIG = {"KEY": SECRET, "PLAIN": "x"}
SHOWN = {"KEY": HIDDEN, "PLAIN": "x"}
MARKS = {f"{MARK}KEY": True}
FUNCTION = Behaviour(function=lambda request: Answer(body=b"hi"))


async def test_no_reply_of_v2_shows_a_hidden_value_and_what_is_sent_back_keeps_it(tmp_path: Path) -> None:
    async with live_api(tmp_path) as api:
        app = await api.json(
            "POST", "/v2/apps", json={"name": "shop", "config": CONFIG, "annotations": MARKS}
        )
        given = {"name": "f", "app_id": app["id"], "image": "i", "config": CONFIG}
        fn = await api.json("POST", "/v2/fns", json=given)
        app_at, fn_at = f"/v2/apps/{app['id']}", f"/v2/fns/{fn['id']}"
        fn = await api.json("GET", fn_at)
        assert (app["config"], fn["config"]) == (SHOWN, SHOWN), "a mark of an app holds for its functions"
        changed = {**app, "config": {**app["config"], "PLAIN": "y"}}
        for path, body in ((app_at, changed), (fn_at, fn)):
            assert (await api.json("PUT", path, json=body))["config"]["KEY"] == HIDDEN
        [listed] = (await api.json("GET", "/v2/apps"))["items"]
        [of_app] = (await api.json("GET", "/v2/fns", params={"app_id": app["id"]}))["items"]
        assert (listed["config"], of_app["config"]) == ({**SHOWN, "PLAIN": "y"}, SHOWN)
        for_runner = (await api.json("GET", f"/v1/runner/apps/{app['id']}"))["app"]
        assert for_runner["config"] == {**CONFIG, "PLAIN": "y"}
        assert (await api.stores.datastore.fn(fn["id"])).config == CONFIG


async def test_a_page_hides_in_each_item_and_reads_the_app_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live_api(tmp_path) as api:
        app = await api.json("POST", "/v2/apps", json={"name": "shop", "annotations": MARKS})
        for number in range(3):
            fn = {"name": f"f{number}", "app_id": app["id"], "image": "i", "config": CONFIG}
            await api.json("POST", "/v2/fns", json=fn)
            route = {"path": f"/{number}", "image": "i", "config": CONFIG}
            await api.json("POST", "/v1/apps/shop/routes", json={"route": route})
        store, reads = type(api.stores.datastore), list[str]()
        read = store.app

        async def counted(self: Datastore, app_id: str) -> App:
            reads.append(app_id)
            return await read(self, app_id)

        monkeypatch.setattr(store, "app", counted)
        fns = (await api.json("GET", "/v2/fns", params={"app_id": app["id"]}))["items"]
        routes = (await api.json("GET", "/v1/apps/shop/routes"))["routes"]
    assert [each["config"] for each in (*fns, *routes)] == [SHOWN] * 6
    assert reads == [app["id"]] * 2


async def test_a_mark_that_comes_later_hides_what_is_there(tmp_path: Path) -> None:
    async with live_api(tmp_path) as api:
        app = await api.json("POST", "/v2/apps", json={"name": "shop", "config": CONFIG})
        assert app["config"] == CONFIG
        changed = await api.json("PUT", f"/v2/apps/{app['id']}", json={"annotations": MARKS})
        assert changed["config"] == SHOWN


async def test_no_reply_of_v1_and_no_message_of_a_route_has_a_hidden_value(tmp_path: Path) -> None:
    async with live_api(tmp_path) as api:
        body = {
            "app": {"name": "shop", "config": {"ANOTHER": SECRET}, "annotations": {f"{MARK}ANOTHER": True}}
        }
        replies = [await api.json("POST", "/v1/apps", json=body)]
        route = {"path": "/r", "image": "i", "type": "async", "config": CONFIG, "annotations": MARKS}
        replies.append(await api.json("POST", "/v1/apps/shop/routes", json={"route": route}))
        again = {"route": {"config": replies[1]["route"]["config"]}}
        for method, path, given in (
            ("PATCH", "/v1/apps/shop/routes/r", again), ("PUT", "/v1/apps/shop/routes/r", again),
            ("GET", "/v1/apps/shop/routes/r", None), ("GET", "/v1/apps/shop/routes", None),
            ("GET", "/v1/apps/shop", None), ("GET", "/v1/apps", None),
            ("PATCH", "/v1/apps/shop", {"app": {"config": {"ANOTHER": HIDDEN}}}),
        ):  # fmt: skip
            replies.append(await api.json(method, path, json=given))
        assert SECRET not in json.dumps(replies)
        stored = await api.stores.datastore.route(replies[0]["app"]["id"], "/r")
        assert stored.config == CONFIG
        call = Call(
            id=new_id(), app_id=stored.app_id, path="/r", image="i", type="async", config=CONFIG,
            annotations=stored.annotations,
        )  # fmt: skip
        await api.data.enqueue(call)
        [leased] = await api.data.dequeue("n", 1, 0)
        assert leased.call.config == {"PLAIN": "x"}


async def test_what_replies_show_of_a_value_is_none_also_where_only_the_app_hides_it(tmp_path: Path) -> None:
    async with live_api(tmp_path) as api:
        app = await api.json("POST", "/v2/apps", json={"name": "shop", "annotations": MARKS})
        fn = await api.json("POST", "/v2/fns", json={"name": "f", "image": "i", "app_id": app["id"]})
        route = {"path": "/r", "image": "i", "type": "sync"}
        await api.json("POST", "/v1/apps/shop/routes", json={"route": route})
        given = {"config": {"KEY": HIDDEN}}
        for method, path, body in (
            ("POST", "/v2/fns", {"name": "g", "image": "i", "app_id": app["id"], **given}),
            ("PUT", f"/v2/fns/{fn['id']}", given),
            ("POST", "/v1/apps/shop/routes", {"route": {**route, "path": "/s", **given}}),
            ("PATCH", "/v1/apps/shop/routes/r", {"route": given}),
            ("PUT", "/v1/apps/shop/routes/r", {"route": {**route, **given}}),
        ):
            refused = json.dumps(await api.json(method, path, json=body, status=400))
            assert "config KEY: *** stands for" in refused
        await api.json("PUT", f"/v2/fns/{fn['id']}", json={"config": {"KEY": SECRET}})
        await api.json("PUT", f"/v2/fns/{fn['id']}", json=given)
        assert (await api.stores.datastore.fn(fn["id"])).config == {"KEY": SECRET}


async def test_a_runner_completes_a_queued_call_of_a_route(tmp_path: Path) -> None:
    async with rig({"i": FUNCTION}) as r:
        annotations = {f"{MARK}KEY": msgspec.Raw(b"true")}
        route = Route(app_id="app", path="/r", image="i", config=CONFIG, annotations=annotations)
        r.data.routes["app", "/r"] = route.created(times.now())
        call = Call(
            id=new_id(), app_id="app", path="/r", image="i", config={"PLAIN": "x"}, annotations=annotations
        )
        assert (await r.agent.target_of(call)).env == {**CONFIG, "FN_APP_NAME": "app"}


async def test_a_container_gets_its_secret_and_a_changed_file_new_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_files, "LOOK", 0.05)
    (tmp_path / "app").mkdir()
    file = tmp_path / "app" / "db"
    async with rig({"f": FUNCTION}, secrets_path=str(tmp_path)) as r:
        fn = r.deploy("f", config={"DB": "secret://db"})
        with pytest.raises(StartFailed) as caught:
            await r.call(fn)
        assert "this runner has no secret 'db'" in str(caught.value.error.message)
        assert str(tmp_path) not in caught.value.error.message
        for content in ("one", "and two"):
            before = r.agent.target(fn, r.data.apps["app"]).key
            file.write_text(content + "\n")
            await until(lambda before=before: r.agent.target(fn, r.data.apps["app"]).key != before)
            assert (await r.call(fn)).body == b"hi"
            assert r.driver.containers[-1].spec.env["DB"] == content
        await until(lambda: len(r.driver.alive) == 1)
        await r.record(1)
        said = msgspec.json.encode([one.call.wire() for one in r.data.finished])
        assert b"and two" not in said


@pytest.mark.parametrize("type_", ["sync", "async"])
async def test_what_a_client_says_is_no_name_of_a_secret(type_: str, tmp_path: Path) -> None:
    """Of a call in the default format headers are variables, beside those of config."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "db").write_text("s3cret\n")
    headers = [("X-One", "secret://db"), ("X-Two", "secret://nothing")]
    for config, found in (({}, None), ({"DB": "secret://db"}, "s3cret")):
        async with rig(
            {"i": Behaviour(stdio=lambda _: b"hi", exit=Exit(0))}, secrets_path=str(tmp_path)
        ) as r:
            route = Route(
                app_id="app", path="/r", image="i", type=type_, timeout=30, idle_timeout=30, config=config
            )
            target = calls.of_route(route, App(id="app", name="app"), type_, "default")
            call = Call(id=new_id(), app_id="app", path="/r", type=type_, method="POST", config=target.env)
            assert (await r.agent.run(route_job(call, target, headers, b"x"))).body.startswith(b"hi")
            env = r.driver.containers[-1].spec.env
            assert (env["FN_HEADER_X-One"], env["FN_HEADER_X-Two"]) == ("secret://db", "secret://nothing")
            assert env.get("DB") == found
