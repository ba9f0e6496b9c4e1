"""Bodies that are passed on as they come, both ways, through a node with real functions."""

from __future__ import annotations

import asyncio
import io
import json

import aiohttp
import msgspec
import pytest

from shared_models.async_policy import KEEP_RESULT
from shared_models.call import Status
from shared_models.route import Route
from shared_models.trigger import Trigger, TriggerTarget
from tests.integration.streaming import StreamRig, stream_rig
from tests.integration.test_agent import MIB, until

ALL = 64 * MIB
SOME = 24 * MIB
"""What the sockets on the way take of ALL, at most."""


async def pid_of(r: StreamRig) -> int:
    async with r.http.post(r.url(), headers=r.order()) as answer:
        return int((await answer.json())["pid"])


async def test_events_arrive_one_by_one_as_they_are_sent(tmp_path):
    async with stream_rig(tmp_path) as r:
        async with r.http.post(r.url(), headers=r.order(events=True)) as answer:
            # The function says nothing more until it is told to: nothing here waits for a body.
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            assert answer.headers["Fn-Call-Id"]
            for word in ("one", "two", "three"):
                r.words.say(word)
                assert await answer.content.readuntil(b"\n\n") == f"data: {word}\n\n".encode()
            assert not r.data.finished
            r.words.say("end")
            assert await answer.read() == b""
        done = await r.record()
    assert done.call.id == answer.headers["Fn-Call-Id"]
    assert done.call.status == Status.SUCCESS


@pytest.mark.parametrize("type_", ["text/x", ""])
async def test_what_comes_slowly_is_not_kept_until_it_is_complete(tmp_path, type_):
    async with stream_rig(tmp_path) as r:
        r.words.say("<html >")
        async with r.http.post(r.url(), headers=r.order(events=True, type=type_)) as answer:
            assert answer.content_type == (type_ or "text/plain")
            assert await answer.content.readuntil(b"\n\n") == b"data: <html >\n\n"
            r.words.say("end")
            assert await answer.read() == b""


@pytest.mark.parametrize("announced", [True, False])
async def test_a_large_answer_arrives_whole_and_the_container_serves_on(tmp_path, announced):
    async with stream_rig(tmp_path) as r:
        pid = await pid_of(r)
        size = 20 * MIB
        order = r.order(size=size, announce=size if announced else None)
        async with r.http.post(r.url(), headers=order) as answer:
            assert answer.headers.get("Content-Length") == (str(size) if announced else None)
            assert await answer.read() == b"x" * size
        assert await pid_of(r) == pid
        done = await r.record(1)
    assert done.call.status == Status.SUCCESS


@pytest.mark.parametrize("announced", [True, False])
async def test_a_client_that_does_not_read_holds_the_function_back(tmp_path, announced):
    async with stream_rig(tmp_path, max_response_size=0) as r:
        order = r.order(size=ALL, announce=ALL if announced else None)
        async with r.http.post(r.url(), headers=order) as answer:
            assert int(await r.words.hears()) < SOME
            read = 0
            async for piece in answer.content.iter_any():
                read += len(piece)
            assert read == ALL
        assert (await r.record()).call.status == Status.SUCCESS


@pytest.mark.parametrize("announced", [True, False])
async def test_a_function_that_does_not_read_holds_the_client_back(tmp_path, announced):
    """The client stops at what the sockets hold; once the function reads, all of it arrives."""
    sent, stands = 0, asyncio.Event()
    async with stream_rig(tmp_path, http={"max_request_size": 0}) as r:
        order = r.order(waits=True)["Order"]
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port, limit=1 << 16)
        framing = f"Content-Length: {ALL}" if announced else "Transfer-Encoding: chunked"
        head = f"POST /invoke/{r.fn.id} HTTP/1.1\r\nHost: x\r\nOrder: {order}\r\n{framing}\r\n\r\n"
        writer.write(head.encode())
        piece = bytes(MIB)
        data = piece if announced else b"%x\r\n%b\r\n" % (MIB, piece)

        async def send() -> None:
            nonlocal sent
            while sent < ALL:
                writer.write(data)
                try:
                    async with asyncio.timeout(0.3):
                        await writer.drain()
                except TimeoutError:
                    stands.set()
                    await writer.drain()
                sent += MIB
            stands.set()
            writer.write(b"" if announced else b"0\r\n\r\n")

        sending = asyncio.create_task(send())
        await stands.wait()
        assert sent < SOME
        r.words.say("read")
        await sending
        assert b" 200 " in await reader.readline()
        answer = await reader.readuntil(b"}")
        writer.close()
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["size"] == ALL


async def test_an_answer_may_come_while_the_body_is_still_being_sent(tmp_path):
    async with stream_rig(tmp_path) as r:
        echoed: asyncio.Queue[bytes] = asyncio.Queue()

        async def body():
            yield b"first"
            assert await echoed.get() == b"first"
            yield b"second"

        async with r.http.post(r.url(), headers=r.order(echoes=True), data=body()) as answer:
            first = await answer.content.readany()
            echoed.put_nowait(first)
            assert first + await answer.read() == b"firstsecond"
        assert (await r.record()).call.status == Status.SUCCESS


async def test_a_small_announced_body_is_read_before_it_gets_a_container(tmp_path):
    async with stream_rig(tmp_path, stream_above=1000) as r:
        for size, begins in ((1000, False), (1001, True)):
            reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
            writer.write(
                f"POST /invoke/{r.fn.id} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
            )
            writer.write(b"x" * (size - 1))
            # The node has seen the first call when it has answered the second one.
            await pid_of(r)
            if begins:
                await until(lambda: r.agent.running == 1)
            assert r.agent.running == int(begins)
            writer.write(b"x")
            assert b" 200 " in await reader.readline()
            writer.close()


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"size": 2 * MIB, "then": "die"}, Status.ERROR),
        ({"size": 2 * MIB, "announce": 3 * MIB}, Status.ERROR),
        ({"size": 5 * MIB}, Status.ERROR),
        ({"size": 2 * MIB, "then": "hang"}, Status.TIMEOUT),
        ({"gzip": 6 * MIB}, Status.ERROR),
    ],
    ids=["dies", "ends early", "too large", "too late", "too large unpacked"],
)
async def test_an_answer_that_fails_in_the_middle_is_cut_and_its_container_goes(tmp_path, order, status):
    async with stream_rig(tmp_path, max_response_size=4 * MIB, stream_above=4000) as r:
        fn = r.deploy("f", timeout=2 if status == Status.TIMEOUT else 60)
        async with r.http.post(r.url(fn), headers=r.order()) as answer:
            pid = int((await answer.json())["pid"])
        async with r.http.post(
            r.url(fn), headers=r.order(**order), skip_auto_headers=["Accept-Encoding"]
        ) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        done = await r.record(1)
        assert done.call.status == status
        assert done.call.error
        async with r.http.post(r.url(fn), headers=r.order()) as answer:
            assert int((await answer.json())["pid"]) != pid


async def test_an_old_client_does_not_take_an_answer_that_was_cut_for_a_whole_one(tmp_path):
    """HTTP/1.0 knows no chunks: the end of the connection is the end of the answer, unless it is reset."""
    async with stream_rig(tmp_path) as r:
        for order, whole in ((r.order(size=2 * MIB), True), (r.order(size=2 * MIB, then="die"), False)):
            reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
            head = f"POST /invoke/{r.fn.id} HTTP/1.0\r\nOrder: {order['Order']}\r\nContent-Length: 0\r\n\r\n"
            writer.write(head.encode())
            assert b" 200 " in await reader.readline()
            if whole:
                assert len((await reader.read()).partition(b"\r\n\r\n")[2]) == 2 * MIB
            else:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            writer.close()


@pytest.mark.parametrize("path", ["/t/app/s", "/r/app/s"])
async def test_triggers_and_routes_stream_as_functions_do(tmp_path, path):
    async with stream_rig(tmp_path, stream_above=1000, http={"max_request_size": 3 * MIB}) as r:
        trigger = Trigger(id="t", name="t", app_id="app", fn_id=r.fn.id, type="http", source="/s")
        r.data.triggers["app", "/s"] = TriggerTarget(app=r.data.apps["app"], fn=r.fn, trigger=trigger)
        r.data.routes["app", "/s"] = Route(
            app_id="app", path="/s", image="f", memory=128, type="sync", format="http-stream", timeout=5,
            idle_timeout=30,
        )  # fmt: skip
        url = f"http://127.0.0.1:{r.port}{path}"
        async with r.http.post(url, headers=r.order(events=True)) as answer:
            assert answer.content_type == "text/event-stream"
            r.words.say("one")
            assert await answer.content.readuntil(b"\n\n") == b"data: one\n\n"
            r.words.say("end")
            assert await answer.read() == b""
        async with r.http.post(url, headers=r.order(), data=io.BytesIO(bytes(2 * MIB))) as answer:
            assert (await answer.json(content_type=None))["size"] == 2 * MIB

        async def too_much():
            for _ in range(4):
                yield bytes(MIB)

        async with r.http.post(url, headers=r.order(), data=too_much()) as answer:
            assert answer.status == 413
        async with r.http.post(url, headers=r.order(size=2 * MIB, then="die")) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        assert (await r.record(3)).call.status == Status.ERROR


async def test_an_announced_answer_that_is_too_large_is_refused_before_it_begins(tmp_path):
    async with stream_rig(tmp_path, max_response_size=4 * MIB) as r:
        order = r.order(size=5 * MIB, announce=5 * MIB)
        async with r.http.post(r.url(), headers=order) as answer:
            assert answer.status == 502
            assert "too large" in (await answer.json())["message"]
        assert (await r.record()).call.status == Status.ERROR


async def test_a_client_that_hangs_up_does_not_end_the_call(tmp_path):
    async with stream_rig(tmp_path, max_response_size=0) as r:
        async with r.http.post(r.url(), headers=r.order(size=ALL, announce=ALL)) as answer:
            await answer.content.readany()
            answer.close()
        assert (await r.record()).call.status == Status.SUCCESS


async def test_a_client_that_takes_nothing_is_cut_off_and_the_call_goes_on(tmp_path):
    async with (
        stream_rig(tmp_path, http={"write_timeout": 0.5}, max_response_size=0) as r,
        r.http.post(r.url(), headers=r.order(size=ALL, announce=ALL)) as answer,
    ):
        assert (await r.record()).call.status == Status.SUCCESS
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_a_body_that_is_cut_off_ends_its_call(tmp_path):
    async with stream_rig(tmp_path, stream_above=1000) as r:
        _, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(f"POST /invoke/{r.fn.id} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n".encode())
        writer.write(b"x" * 1500)
        await until(lambda: r.agent.running == 1)
        writer.close()
        done = await r.record()
        assert done.call.status == Status.ERROR
        assert "cannot be read" in done.call.error


async def test_gzip_that_we_asked_for_is_undone_as_it_comes(tmp_path):
    async with stream_rig(tmp_path, stream_above=100) as r:
        async with r.http.post(
            r.url(), headers=r.order(gzip=8 * MIB), skip_auto_headers=["Accept-Encoding"]
        ) as answer:
            assert "Content-Encoding" not in answer.headers
            assert "Content-Length" not in answer.headers
            assert await answer.read() == bytes(8 * MIB)
        packed = {**r.order(gzip=8 * MIB), "Accept-Encoding": "gzip"}
        async with r.http.post(r.url(), headers=packed) as answer:
            assert int(answer.headers["Content-Length"]) > 100
            assert await answer.read() == bytes(8 * MIB)


async def test_the_answer_to_head_is_its_head(tmp_path):
    async with stream_rig(tmp_path) as r:
        trigger = Trigger(id="t", name="t", app_id="app", fn_id=r.fn.id, type="http", source="/s")
        r.data.triggers["app", "/s"] = TriggerTarget(app=r.data.apps["app"], fn=r.fn, trigger=trigger)
        url = f"http://127.0.0.1:{r.port}/t/app/s"
        for size in (
            3 * MIB,
            2 * MIB,
        ):  # on one connection: what is no body would be in the way of the next head
            async with r.http.head(url, headers=r.order(size=size, announce=size)) as answer:
                assert answer.status == 200
                assert answer.headers["Content-Length"] == str(size)
        async with r.http.get(url, headers=r.order(size=3 * MIB)) as answer:
            assert len(await answer.read()) == 3 * MIB


@pytest.mark.parametrize(
    "asks",
    [{"callback_url": "http://receiver/"}, {"annotations": {KEEP_RESULT: msgspec.Raw(b"true")}}],
    ids=["callback", "kept"],
)
async def test_a_detached_call_keeps_no_more_than_is_handed_in(tmp_path, asks):
    async with stream_rig(tmp_path, callback_max_body=1000) as r:
        r.enqueue(r.fn, **asks, headers={"Order": [r.order(size=8 * MIB)["Order"]]})
        done = await r.record()
        assert done.call.status == Status.SUCCESS
        assert done.body == b"x" * 1000
        assert done.truncated
