"""The API asked at random, by what its own pages say: nothing breaks, and no answer is undocumented."""

import asyncio
import sys

import msgspec
import pytest

from shared_models import times
from shared_models.app import App
from shared_models.async_policy import KEEP_RESULT
from shared_models.call import Call, Finished, Lease, LeasedCall
from shared_models.fn import Fn
from shared_models.route import Route
from tests.integration.live_api import live_api

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
SECONDS = 9
"""For each of the two pages, of a machine that has time for it; else more."""


async def with_what_the_examples_name(api):
    datastore = api.stores.datastore
    app = await datastore.insert_app(App(name="myapp"))
    await datastore.insert_route(Route(app_id=app.id, path="/hello/world", image="some/image"))
    await datastore.insert_fn(Fn(app_id=app.id, name="f", image="some/image"))
    keep = {KEEP_RESULT: msgspec.Raw(b"true")}
    call = Call(
        id="01CGXHPTRGFW00008ZJ0000001", app_id=app.id, path="/hello/world", type="async", annotations=keep
    )
    leased = LeasedCall(call=call, lease=Lease(token="t", attempt=1))
    await api.stores.logstore.claim([leased], "node")
    await api.stores.logstore.start_call(leased.key, times.now())
    ended, answer = msgspec.structs.replace(call, status="success"), {"body": b"\xff", "content_type": "a/b"}
    done = Finished(call=ended, log=b"the log\n", token="t", truncated=True, answered=True, **answer)
    assert await api.stores.logstore.finish_calls([done]) == []


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_no_request_is_answered_with_500_or_as_the_page_does_not_say(tmp_path, version):
    async with live_api(tmp_path) as api:
        await with_what_the_examples_name(api)
        for seconds in (SECONDS, 10 * SECONDS):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "schemathesis.cli", "run", f"{api.base_url}/swagger/{version}.yml",
                "--checks", ",".join(CHECKS), "--max-time", str(seconds), "--max-examples", "20",
                "--seed", "1", "--suppress-health-check", "all", "--no-color", "--warnings", "off",
                cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            output = (await process.communicate())[0].decode()
            assert process.returncode == 0, output
            if "No issues found" in output:
                return
    raise AssertionError(f"nothing was tried: {output}")
