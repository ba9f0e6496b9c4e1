"""Calls on the fast path are told, recorded and counted as those on the ordinary way."""

from __future__ import annotations

import gzip
import json

import pytest

from runner_node.drivers.contract import Exit
from runner_node.drivers.fake_behaviour import Answer, Behaviour, Request
from shared_models.call import Reason, Status
from tests.integration.quick import (
    answers_counted,
    common,
    counts,
    less,
    quick_rig,
)

TEXT = ("Content-Type", "text/plain")
EVERY = [
    "X-Some: header\r\nX-Some: again\r\n",
    "Connection: keep-alive\r\nTe: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n",
    "Te: gzip\r\nUser-Agent: me\r\nAccept-Encoding: br\r\nContent-Type: text/x\r\n",
    "Fn-Call-Id: mine\r\nFn-Deadline: never\r\nFn-Attempt: 7\r\nFn_Callback_Url: http://x\r\nfn-delay: 9\r\n",
    "X-Latin: caf\udce9\r\nX-Utf: caf\u00e9\r\nX-Empty:\r\n",
]


def tells(request: Request) -> Answer:
    """What the function sees."""
    seen = {
        name: value for name, value in request.headers.items() if name not in ("fn-call-id", "fn-deadline")
    }
    body = json.dumps([request.line, seen, request.body.decode("latin-1")]).encode()
    return Answer(headers=(("Content-Type", "application/json"),), body=body)


def says(body: bytes, *headers: tuple[str, str], status: int = 200, log: bytes = b"") -> Behaviour:
    answer = Answer(status=status, headers=headers, body=body, log=log)
    return Behaviour(function=lambda request: answer)


def raw(head: str, body: bytes = b"") -> Behaviour:
    return Behaviour(garbage=head.replace("\n", "\r\n").encode("latin-1") + body)


CHUNK = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
ANSWERS = {
    "plain": says(b"hello", TEXT),
    "log": says(b"hello", TEXT, log=b"one\ntwo"),
    "no type": says(b"hello"),
    "html": says(b"<html><body>"),
    "json": says(b'{"a": 1}'),
    "binary": says(bytes(range(256))),
    "empty": says(b""),
    "empty with type": says(b"", TEXT),
    "types": says(b"x", TEXT, ("content-type", "text/html")),
    "headers": says(b"x", TEXT, ("X-A", "1"), ("x-a", "2"), ("X-A", "1"), ("X-Empty", "")),
    "hop by hop": says(b"x", TEXT, ("Keep-Alive", "5"), ("Te", "gzip"), ("Trailer", "x"), ("Upgrade", "x")),
    "own": says(b"x", TEXT, ("Date", "Monday"), ("server", "mine"), ("Fn-Call-Id", "me")),
    "latin": says(b"x", TEXT, ("X-Latin", "caf\xe9"), ("X-Utf", "caf\xc3\xa9")),
    "fdk": says(b"x", TEXT, ("Fn-Fdk-Version", "fdk-x/1.2"), ("fn-fdk-version", "second")),
    "status": says(b"x", TEXT, ("Fn-Http-Status", "404"), ("Fn-Http-H-X", "y")),
    "gzip": says(gzip.compress(b"x" * 1000), TEXT, ("Content-Encoding", "gzip")),
    "gzip broken": says(b"not gzip", TEXT, ("Content-Encoding", "gzip")),
    "large": says(b"x" * 9_000, TEXT),
    "closes": says(b"x", TEXT, ("Connection", "close")),
    "failed": says(b"why", TEXT, status=502),
    "late": says(b"why", TEXT, status=504),
    "other": says(b"why", TEXT, status=500),
    "created": says(b"why", TEXT, status=201),
    "too large at once": raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", CHUNK * 2 + b"0\r\n\r\n"),
    "too large": says(b"x" * 300_000, TEXT),
    "head too large": says(b"x", ("X", "y" * 20_000)),
    "garbage": raw("no HTTP at all\n\n"),
    "nothing": Behaviour(exits_in_call=1, function=lambda request: Answer(headers=(), body=b"")),
    "cut": raw("HTTP/1.1 200 OK\nContent-Length: 10\n\n", b"half"),
    "cut head": raw("HTTP/1.1 200 OK\nContent-Le"),
    "until the end": raw("HTTP/1.1 200 OK\n\n", b"all of it"),
    "twice": raw("HTTP/1.1 200 OK\nContent-Length: 3\n\noneHTTP/1.1 200 OK\nContent-Length: 3\n\ntwo"),
    "more": raw("HTTP/1.1 200 OK\nContent-Length: 3\n\n", b"one and more"),
    "chunks": raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", b"3\r\none\r\n0\r\nX-Late: x\r\n\r\n"),
    "continue": raw("HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 3\n\n", b"one"),
    "dies in the middle": Behaviour(exits_in_call=1, exit=Exit(3)),
    "killed": Behaviour(exits_in_call=1, exit=Exit(137)),
    "out of memory": Behaviour(exits_in_call=1, exit=Exit(137, oom=True)),
    "dies after": Behaviour(exits_after=1, exit=Exit(3)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERS)
async def test_both_ways_make_the_same_of_an_answer(kind: str) -> None:
    async with quick_rig({"f": ANSWERS[kind]}, max_response_size=10_000, max_header_size=8192) as r:
        fn = r.deploy("f")
        await r.told(r.ordinary, fn)
        await r.ends(0)
        seen = []
        for number, node in enumerate((r.ordinary, r.fast), 1):
            if kind in ("closes", "too large", "nothing") or ANSWERS[kind].garbage:
                await r.restarts()
            await r.knows(fn)
            counted, answered = counts(r.series(fn)), answers_counted()
            told = await r.told(node, fn)
            record = common(await r.ends(number))
            told_by_metrics = less(answers_counted(), answered)
            took = [told_by_metrics.pop(name) for name in list(told_by_metrics) if "latency_sum" in name]
            assert len(took) == 1
            seen.append((told, record, less(counts(r.series(fn)), counted), told_by_metrics))
        assert (r.quick, r.sent) == (1, 1)
    assert seen[1] == seen[0]


@pytest.mark.parametrize("body", [b"", b"x", b"0\r\n\r\n", bytes(range(256)) * 100])
@pytest.mark.parametrize("more", EVERY)
async def test_functions_see_the_same_both_ways(more: str, body: bytes) -> None:
    async with quick_rig({"f": Behaviour(function=tells)}) as r:
        fn = r.deploy("f")
        await r.told(r.ordinary, fn)
        assert await r.told(r.fast, fn, body, more) == await r.told(r.ordinary, fn, body, more)
        assert (r.quick, r.sent) == (1, 1)


async def test_a_timeout_is_told_recorded_and_measured_the_same_both_ways() -> None:
    async with quick_rig({"f": Behaviour(hangs=True)}) as r:
        fn = r.deploy("f", timeout=1)
        await r.knows(fn)
        seen = []
        for number, node in enumerate((r.ordinary, r.fast)):
            await r.knows(fn)
            before = answers_counted()
            told = await r.told(node, fn)
            done = await r.ends(number)
            took = [value for name, value in less(answers_counted(), before).items() if "sum" in name]
            assert len(took) == 1
            assert 1000 <= took[0] < 30_000
            seen.append((told, common(done)))
            assert (done.call.status, done.call.reason) == (Status.TIMEOUT, Reason.TIMEOUT)
        assert r.quick == 1
    assert seen[0] == seen[1]
    assert b" 504 " in seen[0][0][0]
