"""What hostile clients and broken functions get, through both tiers: a clear error, and a record of it."""

import asyncio
import io
import socket
import struct

import pytest

from runner_node.drivers.fake_behaviour import Answer
from shared_models.trigger import Trigger
from tests.integration.test_hybrid_tiers import ended, two_tiers

DETACHED = {"Fn-Invoke-Type": "detached"}


def answering(*headers, body=b"hi"):
    return lambda request: Answer(headers=headers, body=body)


async def trigger_of(api, fn):
    await api.stores.datastore.insert_trigger(
        Trigger(name="t", app_id=fn.app_id, fn_id=fn.id, type="http", source="/t")
    )
    return "/t/app-of-f/t"


async def connect(runner):
    return await asyncio.open_connection(runner._base_url.host, runner._base_url.port)


def head(path, *lines):
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: x", *lines, "", "")).encode("latin-1")


def reset(writer):
    """Hangs up as a client that is killed does."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


# -- clients -----------------------------------------------------------------------------------


async def test_a_detached_call_may_have_headers_that_are_not_utf_8(tmp_path):
    seen = []

    def function(request):
        seen.append(request.headers["x"])
        return Answer()

    async with two_tiers(tmp_path, function) as (api, runner):
        fn = await api.fn()
        reader, writer = await connect(runner)
        lines = ("Fn-Invoke-Type: detached", "X: caf\xe9", "Content-Length: 0", "Connection: close")
        writer.write(head(f"/invoke/{fn.id}", *lines))
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 202 ")
        [call] = (await api.json("GET", f"/v2/fns/{fn.id}/calls"))["items"]
        assert (await ended(api, fn, call["id"]))["status"] == "success"
    assert seen[0].encode("latin-1").decode() == "caf\xe9"


@pytest.mark.parametrize("body", [b"\x01", b"\xff", b'"', b"x"], ids=["control", "binary", "quote", "text"])
async def test_what_a_runner_accepts_its_api_node_accepts(tmp_path, body):
    """However much the body grows on its way: as JSON, or as base64 in it."""
    most = 4 << 20
    sizes = []

    def function(request):
        sizes.append((len(request.body), set(request.body)))
        return Answer()

    async with two_tiers(tmp_path, function, max_request_size=most) as (api, runner):
        fn = await api.fn()
        async with runner.post(f"/invoke/{fn.id}", data=io.BytesIO(body * most), headers=DETACHED) as answer:
            assert answer.status == 202, await answer.text()
            call_id = (await answer.json())["call_id"]
        assert (await ended(api, fn, call_id))["status"] == "success"
    assert sizes == [(most, {body[0]})]


async def test_a_client_that_hangs_up_in_the_middle_of_its_body_leaves_a_record(tmp_path):
    async with two_tiers(tmp_path) as (api, runner):
        fn = await api.fn()
        # A container waits: a call that has to wait for one would be given up before its body is read.
        async with runner.post(f"/invoke/{fn.id}", data=b"first") as answer:
            first = answer.headers["Fn-Call-Id"]
        await ended(api, fn, first)
        _, writer = await connect(runner)
        writer.write(head(f"/invoke/{fn.id}", "Transfer-Encoding: chunked") + b"2\r\nhi\r\n")
        await writer.drain()
        async with runner.get("/version"):  # by now the other request has been read
            pass
        reset(writer)
        async with asyncio.timeout(60):
            while len(calls := (await api.json("GET", f"/v2/fns/{fn.id}/calls"))["items"]) < 2:
                await asyncio.sleep(0.02)
        [cut] = [call for call in calls if call["id"] != first]
        assert cut["status"] == "error"
        assert cut["error"].startswith("Request body cannot be read")


# -- functions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["9" * 5000, "100", "1000", "-1", "2e2", "", "\xb2\xb2\xb2"])
async def test_a_status_that_is_none_is_not_passed_on(tmp_path, said):
    async with two_tiers(tmp_path, answering(("Fn-Http-Status", said))) as (api, runner):
        path = await trigger_of(api, await api.fn())
        async with runner.get(path) as answer:
            assert (answer.status, await answer.read()) == (200, b"hi")
            assert "Fn-Call-Id" in answer.headers


async def test_the_calls_own_id_comes_first_whatever_a_function_says(tmp_path):
    forged = (("Fn-Call-Id", "forged"), ("Fn-Http-H-Fn-Call-Id", "forged"))
    async with two_tiers(tmp_path, answering(*forged)) as (api, runner):
        fn = await api.fn()
        for path in (f"/invoke/{fn.id}", await trigger_of(api, fn)):
            async with runner.post(path) as answer:
                call_id, *made_up = answer.headers.getall("Fn-Call-Id")
            # As Fn: /invoke passes the function's headers on, a trigger only those with the prefix.
            assert made_up == (["forged"] if path.startswith("/invoke") else [])
            assert (await ended(api, fn, call_id))["status"] == "success"


async def test_header_bytes_that_are_not_utf_8_reach_the_client_as_text(tmp_path):
    async with two_tiers(tmp_path, answering(("Fn-Http-H-X", "caf\xe9"))) as (api, runner):
        path = await trigger_of(api, await api.fn())
        async with runner.get(path) as answer:
            assert (answer.status, answer.headers["X"]) == (200, "caf\xe9")
