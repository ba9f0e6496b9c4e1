"""The v1 API where the recordings do not reach."""

import asyncio
import json
from pathlib import Path

import pytest

from shared_models.app import App
from shared_models.call import Call, Finished
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.route import Route
from tests.integration.live_api import call_of, live_api

LONG = "a" * 255
VECTORS = Path(__file__).parents[1] / "wire" / "scenarios" / "vectors"


async def a_route(api, path="/p", app="app"):
    given = {"route": {"path": path, "image": "some/image"}}
    return (await api.json("POST", f"/v1/apps/{app}/routes", json=given))["route"]


async def test_an_app_of_v2_with_a_long_name_is_an_app_of_v1_too(tmp_path):
    async with live_api(tmp_path) as api:
        app = await api.json("POST", "/v2/apps", json={"name": LONG})
        assert (await api.json("GET", f"/v1/apps/{LONG}"))["app"] == app
        assert (await a_route(api, app=LONG))["app_id"] == app["id"]
        await api.json("POST", "/v1/apps", json={"app": {"name": "b" * 31}}, status=400)


async def test_what_v1_made_can_be_changed_by_v2(tmp_path):
    async with live_api(tmp_path) as api:
        given = {"app": {"name": "app", "syslog_url": "tls://a:1,udp://b:2"}}
        app = (await api.json("POST", "/v1/apps", json=given))["app"]
        changed = await api.json("PUT", f"/v2/apps/{app['id']}", json={"config": {"K": "v"}})
        assert (changed["config"], changed["syslog_url"]) == ({"K": "v"}, "tls://a:1,udp://b:2")
        await api.json("PUT", f"/v2/apps/{app['id']}", json={"syslog_url": "tls://a:1"}, status=400)
        await api.json("PATCH", "/v1/apps/app", json={"app": {"syslog_url": "unix:///x"}}, status=400)


@pytest.mark.parametrize("name", ["é", "é" * 15, "%00", "中"])
async def test_names_that_stop_the_original_are_names_here(tmp_path, name):
    async with live_api(tmp_path) as api:
        said = await api.json("GET", f"/v1/apps/{name}", status=404)
        assert said == {"error": {"message": "App not found"}}
        if name != "%00":
            route = await a_route(api, f"/{name}", app=name)
            found = await api.json("GET", f"/v1/apps/{name}/routes/{name}")
            assert found["route"] == route


async def test_a_null_annotation_is_refused_on_create_and_removes_on_update(tmp_path):
    async with live_api(tmp_path) as api:
        given = {"app": {"name": "app", "annotations": {"k": None}}}
        said = await api.json("POST", "/v1/apps", json=given, status=400)
        assert said["error"]["message"].startswith("Invalid annotation value")
        await api.json("POST", "/v1/apps", json={"app": {"name": "app", "annotations": {"k": 1, "l": 2}}})
        changed = await api.json("PATCH", "/v1/apps/app", json={"app": {"annotations": {"k": None}}})
        assert changed["app"]["annotations"] == {"l": 2}


async def test_routes_are_found_with_and_without_their_slash_at_any_depth(tmp_path):
    async with live_api(tmp_path) as api:
        route = await a_route(api, "/a/b/c")
        for path in ("a/b/c", "/a/b/c", "a//b/./x/../c/", "a%2Fb%2Fc"):
            async with api.client.get(f"{api.base_url}/v1/apps/app/routes/{path}") as answer:
                assert (await answer.json())["route"] == route
        lines = await api.json("PUT", "/v1/apps/app/routes/a%0Ab", json={"route": {"image": "i"}}, status=400)
        assert lines == {"error": {"message": "Path malformed"}}


async def test_an_escaped_slash_is_a_slash_for_every_method(tmp_path):
    async with live_api(tmp_path) as api:
        route = await a_route(api, "/x")
        base = f"{api.base_url}/v1/apps/app%2froutes"
        async with api.client.get(f"{base}%2Fx") as answer:
            assert (await answer.json())["route"] == route
        async with api.client.delete(f"{base}%2Fx") as answer:
            assert await answer.json() == {"message": "Route deleted"}
        async with api.client.get(f"{api.base_url}/v1/apps/app%2Fnone") as answer:
            assert (answer.status, (await answer.json())["error"]["message"]) == (
                404, "Path not found: /v1/apps/app/none",
            )  # fmt: skip


async def test_look_ups_of_apps_and_routes_have_an_etag(tmp_path):
    async with live_api(tmp_path) as api:
        await a_route(api)
        for path in ("/v1/apps/app", "/v1/apps/app/routes/p"):
            async with api.client.get(path) as answer:
                tag = answer.headers["ETag"]
            async with api.client.get(path, headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304


async def test_many_who_make_routes_of_a_new_app_make_one_app(tmp_path):
    async with live_api(tmp_path) as api:
        routes = await asyncio.gather(*(a_route(api, f"/{n}") for n in range(8)))
        assert len({route["app_id"] for route in routes}) == 1
        assert len((await api.json("GET", "/v1/apps"))["apps"]) == 1


async def test_a_refused_route_leaves_no_other_trace_than_its_app(tmp_path):
    async with live_api(tmp_path) as api:
        bad = {"route": {"path": "/p", "image": "i", "cpus": "x"}}
        for method, path in (("POST", ""), ("PUT", "/p")):
            said = await api.json(method, f"/v1/apps/app/routes{path}", json=bad, status=400)
            assert said["error"]["message"].startswith("Cpus is invalid")
            await api.json("GET", "/v1/apps/app", status=404)


async def test_whole_calls_are_shown_without_who_sent_them(tmp_path, s3):
    async with live_api(tmp_path, logstore=f"{s3.url}?prefix=t-{new_id().lower()}") as api:
        fn = await api.fn()
        headers = {"Authorization": ["Bearer s3cret"], "Cookie": ["s3cret"], "X-A": ["1"]}
        call = Call(id=new_id(), app_id=fn.app_id, path="/p", status="success", type="sync", headers=headers)
        await api.data.finish([Finished(call=call)])
        shown = (await api.json("GET", f"/v1/apps/app-of-f/calls/{call.id}"))["call"]
        assert (await api.json("GET", "/v1/apps/app-of-f/calls"))["calls"] == [shown]
        assert shown["headers"] == {"Authorization": ["***"], "Cookie": ["***"], "X-A": ["1"]}


async def test_whole_calls_are_shown_without_what_their_environment_says_of_who_sent_them(tmp_path, s3):
    """In the default format headers are in the config; and values may be marked since."""
    async with live_api(tmp_path, logstore=f"{s3.url}?prefix=t-{new_id().lower()}") as api:
        app = await api.json("POST", "/v2/apps", json={"name": "app"})
        config = {"FN_HEADER_Authorization": "Bearer s3cret", "FN_HEADER_Cookie": "s3cret", "KEY": "s3cret"}
        config |= {"FN_HEADER_X-A": "1", "Cookie": "no header", "PLAIN": "x"}
        call = Call(id=new_id(), app_id=app["id"], path="/p", status="success", type="sync", config=config)
        await api.data.finish([Finished(call=call)])
        await api.json("PUT", f"/v2/apps/{app['id']}", json={"annotations": {"fn.hybrid/secret/KEY": True}})
        shown = (await api.json("GET", f"/v1/apps/app/calls/{call.id}"))["call"]
        assert (await api.json("GET", "/v1/apps/app/calls"))["calls"] == [shown]
        assert shown["config"] == {
            "FN_HEADER_Authorization": "***", "FN_HEADER_Cookie": "***", "FN_HEADER_X-A": "1",
            "Cookie": "no header", "PLAIN": "x",
        }  # fmt: skip


async def test_calls_of_functions_are_listed_with_those_of_routes(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        queued = call_of(fn)
        await api.data.enqueue(queued)
        of_route = Call(id=new_id(), app_id=fn.app_id, path="/p", status="error", error="e", type="sync")
        await api.data.finish([Finished(call=of_route, log=b"\xfflog")])
        listed = (await api.json("GET", "/v1/apps/app-of-f/calls"))["calls"]
        assert [(call["id"], call["status"], call["path"]) for call in listed] == [
            (of_route.id, "error", "/p"), (queued.id, "queued", ""),
        ]  # fmt: skip
        log = await api.json("GET", f"/v1/apps/app-of-f/calls/{of_route.id}/log")
        assert log["log"] == {"call_id": of_route.id, "log": "�log"}
        said = await api.json("GET", f"/v1/apps/app-of-f/calls/{queued.id}/log", status=404)
        assert said["error"]["message"].startswith("Call log not found: the call is queued")


async def test_a_log_is_found_under_its_own_app_alone(tmp_path, s3):
    for number, logstore in enumerate(("", f"{s3.url}?prefix=t-{new_id().lower()}")):
        (tmp_path / str(number)).mkdir()
        async with live_api(tmp_path / str(number), logstore=logstore) as api:
            bank, shop = [await api.stores.datastore.insert_app(App(name=name)) for name in ("bank", "shop")]
            call = Call(id=new_id(), app_id=bank.id, path="/p", status="success", type="sync")
            await api.data.finish([Finished(call=call, log=b"s3cret")])
            assert (await api.json("GET", f"/v1/apps/bank/calls/{call.id}/log"))["log"]["log"] == "s3cret"
            for path in (f"/v1/apps/{shop.name}/calls/{call.id}/log", f"/v1/apps/shop/calls/{call.id}"):
                assert "s3cret" not in str(await api.json("GET", path, status=404))


async def test_a_call_that_a_runner_has_yet_to_hand_in_is_waited_for(tmp_path):
    async with live_api(tmp_path) as api:
        app = await api.stores.datastore.insert_app(App(name="app"))
        call = Call(id=new_id(), app_id=app.id, path="/p", status="success")
        asked = asyncio.create_task(api.json("GET", f"/v1/apps/app/calls/{call.id}/log"))
        await asyncio.sleep(0.05)
        await api.data.finish([Finished(call=call, log=b"late")])
        assert (await asked)["log"]["log"] == "late"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("from_time=-99999999999999", 1),
        ("to_time=99999999999999", 1),
        ("from_time=99999999999999", 0),
        ("cursor=%00", 1),
        ("cursor=~", 1),
        ("per_page=%D9%A1", 1),
    ],
)
async def test_odd_bounds_of_a_listing_are_bounds(tmp_path, query, count):
    async with live_api(tmp_path) as api:
        app = await api.stores.datastore.insert_app(App(name="app"))
        call = Call(id=new_id(), app_id=app.id, status="success", created_at="2027-01-15T08:00:00.000Z")
        await api.data.finish([Finished(call=call)])
        assert len((await api.json("GET", f"/v1/apps/app/calls?{query}"))["calls"]) == count


@pytest.mark.parametrize("time", ["٣", "1_0", "+", "9" * 5000, "9223372036854775808", "0x1", "1e3"])
async def test_what_is_no_epoch_time_is_refused(tmp_path, time):
    async with live_api(tmp_path) as api:
        await api.stores.datastore.insert_app(App(name="app"))
        said = await api.json("GET", "/v1/apps/app/calls", params={"to_time": time}, status=400)
        assert said == {"error": {"message": "to_time is not an epoch time"}}


async def test_deleting_an_app_takes_functions_and_routes_of_both_apis(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        await a_route(api, app="app-of-f")
        assert await api.json("DELETE", "/v1/apps/app-of-f") == {"message": "App deleted"}
        await api.json("GET", f"/v2/fns/{fn.id}", status=404)
        app = await api.stores.datastore.insert_app(App(name="app-of-f"))
        await api.stores.datastore.insert_fn(Fn(app_id=app.id, name="f", image="i"))
        await api.stores.datastore.insert_route(Route(app_id=app.id, path="/p", image="i"))


def recorded(name):
    return json.loads((VECTORS / f"{name}.json").read_text())["cases"]


async def test_names_are_taken_and_refused_as_recorded(tmp_path):
    async with live_api(tmp_path) as api:
        for case in recorded("appnames"):
            given = {"app": {"name": case["name"]}}
            answer = await api.json("POST", "/v1/apps", json=given, status=400 if case["error"] else 200)
            assert answer.get("error", {}).get("message", "") == case["error"], case


async def test_times_are_taken_and_refused_as_recorded(tmp_path):
    async with live_api(tmp_path) as api:
        for number, case in enumerate(recorded("times")):
            given = {"app": {"name": f"app{number}", "created_at": case["in"]}}
            answer = await api.json("POST", "/v1/apps", json=given, status=400 if case.get("error") else 200)
            assert answer.get("error", {}).get("message", "") == ("Invalid JSON" if case.get("error") else "")
