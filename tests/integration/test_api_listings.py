import base64

import pytest

from shared_models.fn import Fn
from shared_models.trigger import Trigger
from tests.integration.live_api import live_api


async def pages(api, path, **params):
    """Names of all pages, following the cursor."""
    found, cursor = [], ""
    while True:
        page = await api.json("GET", path, params={**params, "cursor": cursor})
        found.append([item["name"] for item in page["items"]])
        cursor = page.get("next_cursor", "")
        if not cursor:
            return found


async def test_functions_are_paged_by_name(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn("a")
        for name in ("c", "b", "É"):
            await api.stores.datastore.insert_fn(Fn(name=name, app_id=fn.app_id, image="i"))
        assert await pages(api, "/v2/fns", app_id=fn.app_id, per_page=2) == [["a", "b"], ["c", "É"], []]


async def test_triggers_of_one_name_are_not_lost_between_pages(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn("a")
        other = await api.stores.datastore.insert_fn(Fn(name="b", app_id=fn.app_id, image="i"))
        for fn_id, name in ((fn.id, "same"), (other.id, "same"), (fn.id, "zoo")):
            await api.stores.datastore.insert_trigger(
                Trigger(name=name, app_id=fn.app_id, fn_id=fn_id, type="http", source=f"/{name}{fn_id}")
            )
        listed = await pages(api, "/v2/triggers", app_id=fn.app_id, per_page=1)
        assert listed == [["same"], ["same"], ["zoo"], []]
        # A cursor of Fn's own has the name only.
        cursor = base64.urlsafe_b64encode(b"same").decode().rstrip("=")
        page = await api.json("GET", "/v2/triggers", params={"app_id": fn.app_id, "cursor": cursor})
        assert [item["name"] for item in page["items"]] == ["zoo"]


@pytest.mark.parametrize("cursor", ["!", "a", "_-8", "cTI5=x"])
@pytest.mark.parametrize("path", ["/v2/apps", "/v2/fns?app_id=x", "/v2/triggers?app_id=x"])
async def test_a_cursor_that_does_not_decode_is_refused(tmp_path, path, cursor):
    async with live_api(tmp_path) as api:
        path = f"{path}{'&' if '?' in path else '?'}cursor={cursor}"
        answer = await api.json("GET", path, status=400)
        assert answer == {"message": "Invalid cursor, use the next_cursor of the previous page"}


async def test_invocations_are_refused_on_an_api_node(tmp_path):
    async with live_api(tmp_path) as api:
        for method, path in (("GET", "/r/"), ("POST", "/r/app/route"), ("DELETE", "/r/x")):
            answer = await api.json(method, path, status=400)
            said = "Invoking routes /r/ is not supported on nodes configured as type API"
            assert answer == {"error": {"message": said}}
        assert await api.json("POST", "/invoke/x", status=404) == {
            "message": "Path not found: POST /invoke/x: "
            "this is an API node, functions are called at runner nodes"
        }


async def test_a_broken_body_names_the_field_in_a_header(tmp_path):
    async with live_api(tmp_path) as api, api.client.post("/v2/fns", data=b'{"timeout":"1"}') as answer:
        assert (answer.status, await answer.json()) == (400, {"message": "Invalid JSON"})
        assert answer.headers["Error-Detail"].startswith("timeout: ")


async def test_runners_are_listed(tmp_path):
    async with live_api(tmp_path) as api:
        report = {"id": "node-1", "address": "http://10.0.0.1:8081", "capacity_memory": 1024, "warm": ["x"]}
        assert await api.json("POST", "/v1/runner/heartbeat", json=report) == {"state": "active"}
        (runner,) = (await api.json("GET", "/v2/runners"))["items"]
        assert (runner["id"], runner["state"], runner["warm"]) == ("node-1", "active", ["x"])
