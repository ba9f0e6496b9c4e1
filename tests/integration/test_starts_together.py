"""Starts of queued calls over HTTP: those that come together go in one request."""

import asyncio
import json

from aiohttp import web

from hybrid_client.client import ClientSettings, open_data_access
from shared_models import errors
from shared_models.call import Call, Lease, LeasedCall
from shared_models.ids import new_id
from shared_models.web import HTTPSettings, json_response, read_body, serving
from tests.integration.live_api import call_of, live_api


async def test_calls_start_together_and_a_lost_lease_is_told_of_its_call_alone(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        for _ in range(20):
            await api.data.enqueue(call_of(fn))
        async with open_data_access(ClientSettings(api_urls=(api.base_url,))) as data:
            leased = await data.dequeue("n1", 20, 5)
            lost = {leased[0].call.id, leased[7].call.id}
            given = [
                LeasedCall(call=one.call, lease=Lease(token="forged")) if one.call.id in lost else one
                for one in leased
            ]
            outcomes = await asyncio.gather(*map(data.start, given), return_exceptions=True)
            refused = {
                one.call.id for one, outcome in zip(given, outcomes, strict=True) if outcome is not None
            }
            assert refused == lost
            assert {type(outcome) for outcome in outcomes} == {type(None), errors.LeaseLost}
            for one in leased:
                record = await api.stores.logstore.call(one.call.id, app_id=fn.app_id)
                assert record.status == ("queued" if one.call.id in lost else "running")


async def test_two_leases_of_one_call_that_start_together_are_told_apart(tmp_path):
    async with live_api(tmp_path) as api:
        await api.data.enqueue(call_of(await api.fn()))
        [holder] = await api.data.dequeue("n1", 1, 5)
        late = LeasedCall(call=holder.call, lease=Lease(token="late"))
        outcomes = await asyncio.gather(
            *[api.data.start(one) for one in (late, holder, late)], return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [errors.LeaseLost, type(None), errors.LeaseLost]


async def test_an_older_api_node_is_asked_for_one_start_after_the_other():
    asked = []

    async def start(request):
        asked.append(json.loads(await read_body(request))["id"])
        return json_response({"msg": "slingshot: engage"})

    async def unknown(request):
        asked.append(request.path)
        return json_response({"error": {"message": f"Path not found: {request.path}"}}, 404)

    routes = [web.post("/v1/runner/start", start), web.route("*", "/{path:.*}", unknown)]
    http = HTTPSettings(port=0, host="127.0.0.1", drain=0.1)
    async with serving(routes, http, node_type="api") as port:
        settings = ClientSettings(api_urls=(f"http://127.0.0.1:{port}",))
        calls = [LeasedCall(call=Call(id=new_id()), lease=Lease(token="t")) for _ in range(3)]
        async with open_data_access(settings) as data:
            for _ in range(2):
                await asyncio.gather(*map(data.start, calls))
    assert asked.count("/v1/runner/starts") == 1
    assert sorted(set(asked) - {"/v1/runner/starts"}) == sorted(one.call.id for one in calls)
    assert len(asked) == 7
