"""Results of queued calls that are kept, from the call to whoever fetches them, over both tiers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from hybrid_client.client import ClientSettings, open_data_access
from runner_node.agent import running_agent
from runner_node.drivers.fake import open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour, Request
from runner_node.invoke import invoke_routes
from runner_node.settings import AgentSettings
from services.retention import RetentionSettings, tidy
from shared_models.async_policy import BACKOFF, KEEP_RESULT, RETRY_ON
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.web import HTTPSettings, serving
from tests.integration.live_api import LiveAPI, call_of, live_api
from tests.integration.receivers import quick, receiving
from tests.integration.test_agent_formats import json_function

IMAGE = "some/image:1"
BINARY = bytes(range(256)) * 600


def echo(request: Request) -> Answer:
    return Answer(body=request.body, headers=(("Content-Type", "image/x-odd"),))


@dataclass
class Fetched:
    """An answer."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def message(self) -> str:
        """The words of an error, in either API's shape."""
        said = msgspec.json.decode(self.body)
        return str(said["error"]["message"] if "error" in said else said["message"])


@dataclass
class Tiers:
    """Both nodes."""

    api: LiveAPI
    runner: aiohttp.ClientSession

    async def fn(self, name: str = "f", **annotations: str) -> Fn:
        fn = await self.api.fn(name)
        given = {key: msgspec.Raw(text.encode()) for key, text in annotations.items()}
        return await self.api.stores.datastore.update_fn(fn.id, Fn(annotations=given))

    async def call(self, fn: Fn, body: bytes = b"x", **headers: str) -> str:
        asked = {"Fn-Invoke-Type": "detached", **headers}
        async with self.runner.post(f"/invoke/{fn.id}", data=body, headers=asked) as answer:
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["call_id"])

    async def ended(self, fn: Fn, call_id: str) -> str:
        """The status of the call, once it is final."""
        async with asyncio.timeout(60):
            while True:
                record = await self.api.json("GET", f"/v2/fns/{fn.id}/calls/{call_id}")
                if record["status"] not in ("queued", "running"):
                    return str(record["status"])
                await asyncio.sleep(0.02)

    async def get(self, path: str, **more: Any) -> Fetched:
        async with self.api.client.get(path, **more) as answer:
            return Fetched(answer.status, await answer.read(), dict(answer.headers))

    async def result(self, fn: Fn, call_id: str) -> Fetched:
        return await self.get(f"/v2/fns/{fn.id}/calls/{call_id}/result")


@asynccontextmanager
async def tiers(
    folder: Path,
    function: Callable[[Request], Answer] = echo,
    *,
    logstore: str = "",
    behaviour: Behaviour | None = None,
    **agent: Any,
) -> AsyncIterator[Tiers]:
    http = HTTPSettings(port=0, host="127.0.0.1", drain=5.0)
    settings = AgentSettings(spool_path="", max_memory=1 << 30, **agent)
    async with (
        live_api(folder, callbacks=quick(), logstore=logstore) as api,
        open_data_access(ClientSettings(api_urls=(api.base_url,))) as data,
        open_fake({IMAGE: behaviour or Behaviour(function=function)}) as driver,
        running_agent(data, driver, settings, "node-1") as running,
        serving(invoke_routes(running), http, node_type="runner", ready=running.ready) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as runner,
    ):
        yield Tiers(api, runner)


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "s3"])
def logstore(request: pytest.FixtureRequest) -> str:
    """The URL of a log store; "": with the functions, in a SQLite file."""
    if request.param == "sqlite":
        return ""
    server = request.getfixturevalue(request.param)
    return f"{server.url}?prefix=t-{new_id().lower()}" if request.param == "s3" else str(server.url)


@pytest.mark.parametrize("body", [BINARY, b"", b"<script>alert(1)</script>"])
async def test_an_answer_is_fetched_as_the_function_gave_it(
    tmp_path: Path, logstore: str, body: bytes
) -> None:
    async with tiers(tmp_path, logstore=logstore) as nodes:
        fn = await nodes.fn(**{KEEP_RESULT: "true"})
        call_id = await nodes.call(fn, body)
        assert await nodes.ended(fn, call_id) == "success"
        found = await nodes.result(fn, call_id)
    assert (found.status, found.body) == (200, body)
    assert found.headers["Content-Type"] == "image/x-odd"
    assert found.headers["Fn-Call-Id"] == call_id
    assert found.headers["X-Content-Type-Options"] == "nosniff"
    assert found.headers["Content-Disposition"] == "attachment"
    assert "Fn-Result-Truncated" not in found.headers


async def test_a_page_among_answers_is_not_shown_as_one_of_ours(tmp_path: Path) -> None:
    async with tiers(tmp_path, lambda request: Answer(body=b"<html>", headers=())) as nodes:
        fn = await nodes.fn(**{KEEP_RESULT: "true"})
        call_id = await nodes.call(fn)
        await nodes.ended(fn, call_id)
        found = await nodes.result(fn, call_id)
    # As whoever waits for the function is told: what it is looks like.
    assert found.headers["Content-Type"] == "text/html; charset=utf-8"
    assert found.headers["Content-Disposition"] == "attachment"


async def test_a_long_answer_is_cut_and_says_so(tmp_path: Path) -> None:
    async with tiers(tmp_path, callback_max_body=5) as nodes:
        fn = await nodes.fn(**{KEEP_RESULT: "true"})
        for body, kept, cut in ((b"hello world", b"hello", "true"), (b"hello", b"hello", None)):
            call_id = await nodes.call(fn, body)
            await nodes.ended(fn, call_id)
            found = await nodes.result(fn, call_id)
            assert (found.body, found.headers.get("Fn-Result-Truncated")) == (kept, cut)


async def test_a_callback_and_a_kept_result_are_the_same_answer(tmp_path: Path) -> None:
    async with receiving() as receiver, tiers(tmp_path) as nodes:
        fn = await nodes.fn(**{KEEP_RESULT: "true"})
        call_id = await nodes.call(fn, b"both", **{"Fn-Callback-Url": receiver.url()})
        await nodes.ended(fn, call_id)
        [callback] = await nodes.api.stores.outbox.due(10, 30.0)
        assert msgspec.json.decode(callback.body)["body"] == "both"
        assert (await nodes.result(fn, call_id)).body == b"both"


async def test_nothing_is_sent_or_kept_of_a_function_that_does_not_ask(
    tmp_path: Path, monkeypatch: Any
) -> None:
    async with tiers(tmp_path) as nodes:
        sent: list[Any] = []
        finish = nodes.api.data.finish
        monkeypatch.setattr(
            nodes.api.data,
            "finish",
            lambda batch: [sent.extend(batch), finish(batch)][1],  # type: ignore[func-returns-value]
        )
        for number, annotations in enumerate(({}, {KEEP_RESULT: "false"})):
            fn = await nodes.fn(f"f{number}", **annotations)
            call_id = await nodes.call(fn, b"secret")
            await nodes.ended(fn, call_id)
            found = await nodes.result(fn, call_id)
            assert found.status == 404
            assert found.message.startswith("Call result not found: it was not to be kept")
            assert KEEP_RESULT in found.message
    assert {(one.body, one.content_type, one.answered) for one in sent} == {(b"", "", False)}


async def test_what_an_app_says_holds_for_its_functions_unless_they_say_otherwise(tmp_path: Path) -> None:
    async with tiers(tmp_path) as nodes:
        one, other = await nodes.fn("one"), await nodes.fn("other", **{KEEP_RESULT: "false"})
        for fn, status in ((one, 200), (other, 404)):
            await nodes.api.json("PUT", f"/v2/apps/{fn.app_id}", json={"annotations": {KEEP_RESULT: True}})
            call_id = await nodes.call(fn)
            await nodes.ended(fn, call_id)
            assert (await nodes.result(fn, call_id)).status == status


@pytest.mark.parametrize("value", ["yes", 1, None, "true", {}])
async def test_another_value_is_refused_where_it_is_set(tmp_path: Path, value: object) -> None:
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        asked = {"annotations": {KEEP_RESULT: value}}
        route = {"route": {"path": "/p", "image": "i", "type": "async", "format": "json", **asked}}
        if value is None:  # takes it away
            await api.json("PUT", f"/v2/fns/{fn.id}", json=asked)
            return
        for method, path, body in (
            ("PUT", f"/v2/fns/{fn.id}", asked),
            ("PUT", f"/v2/apps/{fn.app_id}", asked),
            ("POST", "/v1/apps/app-of-f/routes", route),
        ):
            said = await api.json(method, path, json=body, status=400)
            assert f"Annotation {KEEP_RESULT} must be true or false" in str(said)


async def test_a_call_that_fails_says_that_there_is_no_answer(tmp_path: Path) -> None:
    async with tiers(tmp_path, lambda request: Answer(status=502, body=b"cannot")) as nodes:
        fn = await nodes.fn(**{KEEP_RESULT: "true"})
        call_id = await nodes.call(fn)
        assert await nodes.ended(fn, call_id) == "error"
        found = await nodes.result(fn, call_id)
    assert (found.status, found.message) == (
        404, "Call result not found: the call ended as error, without an answer to keep",
    )  # fmt: skip


async def test_an_answer_that_says_failure_to_its_caller_is_kept(tmp_path: Path) -> None:
    said = Answer(body=b"no such book", headers=(("Fn-Http-Status", "500"), ("Content-Type", "text/x-no")))
    async with tiers(tmp_path, lambda request: said) as nodes:
        fn = await nodes.fn(**{KEEP_RESULT: "true"})
        call_id = await nodes.call(fn)
        await nodes.ended(fn, call_id)
        found = await nodes.result(fn, call_id)
    assert (found.status, found.body) == (200, b"no such book")


async def test_a_call_has_none_before_its_end_nor_after_a_timeout_or_a_cancel(tmp_path: Path) -> None:
    async with tiers(tmp_path, behaviour=Behaviour(hangs=True)) as nodes:
        slow, stopped = await nodes.fn("slow", **{KEEP_RESULT: "true"}), await nodes.fn("stopped")
        await nodes.api.json("PUT", f"/v2/fns/{slow.id}", json={"timeout": 1})
        await nodes.api.json("PUT", f"/v2/fns/{stopped.id}", json={"annotations": {KEEP_RESULT: True}})
        waiting = await nodes.call(stopped, **{"Fn-Delay": "600"})
        found = await nodes.result(stopped, waiting)
        assert (found.status, found.message) == (
            404, "Call result not found: the call is queued, its result can be read when it has ended",
        )  # fmt: skip
        async with nodes.api.client.delete(f"/v2/fns/{stopped.id}/calls/{waiting}") as answer:
            assert answer.status == 204
        late = await nodes.call(slow)
        assert await nodes.ended(slow, late) == "timeout"
        for fn, call_id, status in ((stopped, waiting, "cancelled"), (slow, late, "timeout")):
            found = await nodes.result(fn, call_id)
            assert found.message == (
                f"Call result not found: the call ended as {status}, without an answer to keep"
            )


async def test_of_several_attempts_the_answer_of_the_last_is_kept(tmp_path: Path) -> None:
    attempts: list[str] = []

    def fails_once(request: Request) -> Answer:
        attempts.append(request.headers["fn-attempt"])
        return Answer(status=502 if len(attempts) == 1 else 200, body=f"attempt {attempts[-1]}".encode())

    async with tiers(tmp_path, fails_once) as nodes:
        fn = await nodes.fn(**{KEEP_RESULT: "true", RETRY_ON: '"error"', BACKOFF: "0.01"})
        call_id = await nodes.call(fn)
        assert await nodes.ended(fn, call_id) == "success"
        assert (await nodes.result(fn, call_id)).body == b"attempt 2"


async def test_a_sync_call_has_none_and_says_why(tmp_path: Path) -> None:
    async with tiers(tmp_path) as nodes:
        fn = await nodes.fn(**{KEEP_RESULT: "true"})
        async with nodes.runner.post(f"/invoke/{fn.id}", data=b"x") as answer:
            assert (answer.status, await answer.read()) == (200, b"x")
            call_id = answer.headers["Fn-Call-Id"]
        found = await nodes.result(fn, call_id)
        assert found.message == "Call result not found: the call is sync, whoever called was answered"


async def test_of_unknown_calls_and_those_of_others_there_is_none(tmp_path: Path) -> None:
    async with tiers(tmp_path) as nodes:
        fn, other = await nodes.fn(**{KEEP_RESULT: "true"}), await nodes.fn("other")
        call_id = await nodes.call(fn)
        await nodes.ended(fn, call_id)
        for path in (
            f"/v2/fns/{other.id}/calls/{call_id}/result",
            f"/v2/fns/{fn.id}/calls/nonsense/result",
            f"/v2/fns/{fn.id}/calls/01CGXHPTRGFW00008ZJ0000001/result",
            f"/v1/apps/app-of-other/calls/{call_id}/result",
        ):
            found = await nodes.get(path)
            assert (found.status, found.message) == (404, "Call result not found"), path
        assert (await nodes.get(f"/v1/apps/app-of-f/calls/{call_id}/result")).body == b"x"
        async with nodes.api.client.head(f"/v2/fns/{fn.id}/calls/{call_id}/result") as answer:
            assert answer.status == 405, "as for a log"


async def test_the_result_of_a_route_is_found_under_its_app(tmp_path: Path, logstore: str) -> None:
    async with tiers(tmp_path, logstore=logstore, behaviour=Behaviour(stdio=json_function)) as nodes:
        route = {
            "path": "/hello", "image": IMAGE, "type": "async", "format": "json",
            "annotations": {KEEP_RESULT: True},
        }  # fmt: skip
        await nodes.api.json("POST", "/v1/apps/books/routes", json={"route": route})
        async with nodes.runner.post("/r/books/hello", data=b"hello") as answer:
            assert answer.status == 202
            call_id = (await answer.json())["call_id"]
        path = f"/v1/apps/books/calls/{call_id}"
        async with asyncio.timeout(60):
            while (await nodes.api.json("GET", path))["call"]["status"] in ("queued", "running"):
                await asyncio.sleep(0.02)
        found = await nodes.get(f"{path}/result")
        assert (found.status, found.body, found.headers["Content-Type"]) == (200, b"hello", "x/echo")
        assert (await nodes.get(f"/v1/apps/none/calls/{call_id}/result")).status == 404


async def test_it_goes_with_its_log_with_its_call_and_with_its_function(tmp_path: Path) -> None:
    async with tiers(tmp_path) as nodes:
        fn = await nodes.fn(**{KEEP_RESULT: "true"})
        stores = nodes.api.stores

        async def one() -> str:
            call_id = await nodes.call(fn)
            await nodes.ended(fn, call_id)
            assert (await nodes.result(fn, call_id)).status == 200
            return call_id

        def later() -> float:
            return stores.clock() + 100

        call_id = await one()
        await tidy(stores, RetentionSettings(logs=10.0), later, pause=0)
        assert "removed since" in (await nodes.result(fn, call_id)).message
        call_id = await one()
        await tidy(stores, RetentionSettings(calls=10.0), later, pause=0)
        assert (await nodes.result(fn, call_id)).status == 404
        call_id = await one()
        async with nodes.api.client.delete(f"/v2/fns/{fn.id}/calls") as answer:
            assert answer.status == 204
        assert (await nodes.result(fn, call_id)).status == 404
        call_id = await one()
        async with nodes.api.client.delete(f"/v2/apps/{fn.app_id}") as answer:
            assert answer.status == 204
        assert (await nodes.result(fn, call_id)).status == 200, "until it is cleaned up, as its log"
        await tidy(stores, RetentionSettings(), pause=0)
        assert (await nodes.result(fn, call_id)).status == 404


async def run_by_hand(api: LiveAPI) -> tuple[str, dict[str, Any]]:
    """A call that a runner has started: where its result will be, and what the runner hands in."""
    fn = await api.fn()
    call = call_of(fn, annotations={KEEP_RESULT: msgspec.Raw(b"true")})
    await api.data.enqueue(call)
    (given,) = (await api.json("GET", "/v1/runner/dequeue?max=1&wait=5&node=n"))["calls"]
    await api.json("POST", "/v1/runner/start", json=given)
    result = {"call": {**given, "status": "success"}, "log": "", "lease": given["lease"]}
    return f"/v2/fns/{fn.id}/calls/{call.id}/result", result


async def test_an_end_that_is_handed_in_twice_keeps_one_result(tmp_path: Path) -> None:
    async with live_api(tmp_path) as api:
        path, result = await run_by_hand(api)
        first = {**result, "body": "", "content_type": "text/x-a"}
        again = {**result, "body_base64": "/wA=", "content_type": "text/x-b"}
        for one in (first, first, again):
            said = await api.json("POST", "/v1/runner/finish", json={"finished": [one]})
            assert said == {"msg": "good night, sweet prince"}
        async with api.client.get(path) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.headers["Content-Type"] == "text/x-a"


async def test_the_end_that_an_older_runner_hands_in_has_no_result(tmp_path: Path) -> None:
    """It sends no body of a call that has no callback: none is not an empty one."""
    async with live_api(tmp_path) as api:
        path, result = await run_by_hand(api)
        await api.json("POST", "/v1/runner/finish", json={"finished": [result]})
        await api.json("GET", path, status=404)
