import asyncio
import io
import json
import logging
import re
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from shared_models import errors, telemetry
from shared_models.web import (
    HTTPSettings,
    api_refusals,
    json_response,
    read_body,
    runner_refusals,
    serving,
    stopping,
)


def settings(**changes):
    return HTTPSettings(**{"port": 0, "host": "127.0.0.1", "drain": 5.0, **changes})


@asynccontextmanager
async def node(*routes, ready=lambda: "", **changes):
    async with serving(list(routes), settings(**changes), node_type="test", ready=ready) as port:
        base = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(base, auto_decompress=False) as client:
            yield client, port


async def raw(port, data):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
        await writer.wait_closed()


async def echo(request):
    return web.Response(body=await read_body(request))


async def test_every_node_says_hello_and_its_version():
    async with node() as (client, _), client.get("/") as hello, client.get("/version") as version:
        assert await hello.json() == {"goto": "https://github.com/fnproject/fn", "hello": "world!"}
        assert hello.headers["Content-Type"] == "application/json; charset=utf-8"
        assert await version.json() == {"version": "0.3.753"}


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/no%20thing", 404, {"message": "Path not found: GET /no thing"}),
        ("GET", "/v1/x", 404, {"error": {"message": "Path not found: /v1/x"}}),
        ("GET", "/r/x", 404, {"error": {"message": "Path not found: /r/x"}}),
        ("GET", "/v1", 404, {"error": {"message": "Path not found: /v1"}}),
        ("GET", "/r", 404, {"error": {"message": "Path not found: /r"}}),
        ("GET", "/V1/x", 404, {"error": {"message": "Path not found: /V1/x"}}),
        ("GET", "/rx", 404, {"message": "Path not found: GET /rx"}),
        ("DELETE", "/version", 405, {"message": "Method not allowed: DELETE /version"}),
        ("OPTIONS", "/version", 405, {"message": "Method not allowed: OPTIONS /version"}),
    ],
)
async def test_unknown_paths_and_methods_are_named(method, path, status, body):
    async with node() as (client, _), client.request(method, path) as answer:
        assert (answer.status, await answer.json()) == (status, body)
        assert answer.headers.get("Allow") == ("GET" if status == 405 else None)


async def test_head_is_refused_where_only_get_is_known():
    async with node() as (client, _), client.head("/version") as answer:
        assert (answer.status, await answer.read()) == (405, b"")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_are_answered_whether_they_send_get_or_head(path):
    async with node() as (client, _), client.head(path) as head, client.get(path) as get:
        assert (head.status, await head.read(), get.status) == (200, b"", 200)
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize(
    ("routes", "method", "path", "where"),
    [
        (api_refusals(), "POST", "/invoke/x", "this is an API node, functions are called at runner nodes"),
        (api_refusals(), "GET", "/t/shop/a/b", "this is an API node, functions are called at runner nodes"),
        (runner_refusals(), "GET", "/v2/apps", "this is a runner node, API nodes manage"),
        (runner_refusals(), "PUT", "/v2/fns/x", "this is a runner node, API nodes manage"),
    ],
)
async def test_what_belongs_to_the_other_tier_is_not_found_and_told_where_it_is(routes, method, path, where):
    async with node(*routes) as (client, _), client.request(method, path) as answer:
        told = {"message": f"Path not found: {method} {path}: {where}"}
        assert (answer.status, await answer.json()) == (404, told)


async def test_a_slash_too_many_is_a_redirect_for_known_paths_only():
    async with node(web.post("/things", echo)) as (client, _):
        async with client.get("/version/?a=1", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (301, "/version?a=1")
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        async with client.post("/things/", data=b"x", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (307, "/things")
        async with client.get("/nothing/", allow_redirects=False) as answer:
            assert answer.status == 404
        async with client.get("/things/", allow_redirects=False) as answer:
            assert answer.status == 404


async def test_a_missing_slash_is_a_redirect_where_other_methods_are_known_without_it():
    routes = (
        web.get("/things", echo, allow_head=False),
        web.get("/things/{path:.+}", echo, allow_head=False),
        web.put("/things/{path:.*}", echo),
    )
    async with node(*routes) as (client, _):
        for method, path, status, target in (
            ("PUT", "/things?a=1", 307, "/things/?a=1"),
            ("GET", "/things/", 301, "/things"),
            ("PUT", "/things/", 200, None),
            ("POST", "/things", 405, None),
            ("PUT", "/other", 404, None),
        ):
            async with client.request(method, path, allow_redirects=False) as answer:
                assert (answer.status, answer.headers.get("Location")) == (status, target)


async def test_a_path_below_does_not_make_one_above():
    below = web.put("/things/{path:.*}", echo)
    async with node(below) as (client, _), client.put("/things", allow_redirects=False) as answer:
        assert (answer.status, "Location" in answer.headers) == (404, False)


async def test_a_redirect_never_leaves_the_node():
    async with node(web.get("/{name}", echo, allow_head=False)) as (_, port):
        answer = await raw(port, b"GET //elsewhere.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"404" in answer.split(b"\r\n")[0]
        assert b"Location" not in answer


@pytest.mark.parametrize(
    ("exc", "status", "headers"),
    [
        (errors.AppNotFound(), 404, {}),
        (errors.InvalidJSON("a: bad\r\nEvil: 1"), 400, {"Error-Detail": "a: bad??Evil: 1"}),
        (errors.InvalidJSON("x" * 1000), 400, {"Error-Detail": "x" * 297 + "..."}),
        (errors.EngineUnavailable(detail="unix:///e/d.sock: no '/var/run/x y/b' at http://e/var/run/"), 503,
         {"Error-Detail": "...: no '... y/b' at http://e/var/run/"}),
        (errors.ContainerInitFailed(detail="stat /python/bin/fdk: no such file"), 502,
         {"Error-Detail": "stat /python/bin/fdk: no such file"}),
        (errors.StoreUnavailable(retry_after=2.2), 503, {"Retry-After": "3"}),
        (errors.Unauthorized("no"), 401, {"WWW-Authenticate": "Bearer"}),
        (errors.ImagePullFailed("i", "why", 404), 404, {}),
    ],
)  # fmt: skip
async def test_an_error_has_its_words_status_and_headers(exc, status, headers):
    async def handler(request):
        raise exc

    async with node(web.get("/x", handler), web.get("/v1/x", handler)) as (client, _):
        async with client.get("/x") as answer:
            assert (answer.status, await answer.json()) == (status, {"message": exc.message})
            assert headers.items() <= dict(answer.headers).items()
        async with client.get("/v1/x") as answer:
            assert (answer.status, await answer.json()) == (status, {"error": {"message": exc.message}})


async def test_a_bug_is_logged_and_shown_as_an_internal_error(caplog):
    async def handler(request):
        raise ValueError("secret thing")

    async with node(web.get("/x", handler)) as (client, _), client.get("/x") as answer:
        assert (answer.status, await answer.json()) == (500, {"message": "internal server error"})
        assert "secret" not in str(answer.headers)
    assert "GET /x failed" in caplog.text


async def test_a_stream_that_fails_is_cut_short(caplog):
    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise ValueError("broke")

    async with node(web.get("/x", handler)) as (client, _):
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.get("/x") as answer:
                await answer.read()


async def test_an_announced_body_over_the_limit_is_refused_everywhere():
    async with node(web.post("/echo", echo), max_request_size=10) as (client, _):
        for path in ("/echo", "/nothing"):
            async with client.post(path, data=b"x" * 11) as answer:
                assert answer.status == 413
                text = "Content-Length too large for this server, 11 > max 10"
                assert await answer.json() == {"message": text}
        async with client.post("/echo", data=b"x" * 10) as answer:
            assert await answer.read() == b"x" * 10


async def test_a_chunked_body_over_the_limit_is_refused_while_it_is_read():
    async def pieces():
        yield b"12345"
        yield b"678901"

    limited = node(web.post("/echo", echo), max_request_size=10)
    async with limited as (client, _), client.post("/echo", data=pieces()) as answer:
        assert answer.status == 413
        assert await answer.json() == {"message": "Request body too large for this server, max 10"}


async def test_a_limit_of_zero_is_none():
    body = b"x" * (3 * 1024 * 1024)
    unlimited = node(web.post("/echo", echo), max_request_size=0)
    async with unlimited as (client, _), client.post("/echo", data=io.BytesIO(body)) as answer:
        assert await answer.read() == body


async def test_bodies_are_not_decompressed():
    said = {"Content-Encoding": "gzip"}
    echoing = node(web.post("/echo", echo))
    async with echoing as (client, _), client.post("/echo", data=b"not gzip", headers=said) as answer:
        assert (answer.status, await answer.read()) == (200, b"not gzip")


async def test_a_client_that_falls_silent_is_timed_out():
    async with node(web.post("/echo", echo), read_timeout=0.05) as (_, port):
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nab"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        line = await asyncio.wait_for(reader.readline(), 60)
        assert b" 504 " in line
        writer.close()
        await writer.wait_closed()


async def test_a_malformed_body_and_a_malformed_head_are_bad_requests(caplog):
    caplog.set_level(logging.ERROR)
    async with node(web.post("/echo", echo)) as (_, port):
        body = (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n"
        )
        for data in (body, b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n"):
            answer = await raw(port, data)
            assert answer.split(b"\r\n")[0].split()[1] == b"400"
            assert b"Traceback" not in answer


async def test_escapes_and_double_slashes_reach_handlers():
    async def show(request):
        return json_response(dict(request.match_info))

    async with node(web.get("/t/{app}{source:(?:/.*)?}", show, allow_head=False)) as (client, _):
        for path, source in (
            ("/t/a/tr%69g", "/trig"),
            ("/t/a//trig", "//trig"),
            ("/t/a/b%2Fc", "/b/c"),
            ("/t/a", ""),
            ("/t/a/", "/"),
            ("/t/a/%C3%A9", "/é"),
        ):
            async with client.get(URL(path, encoded=True)) as answer:
                assert await answer.json() == {"app": "a", "source": source}


async def test_metrics_have_patterns_for_paths():
    async with node(web.get("/only-here/{id}", echo, allow_head=False)) as (client, _):
        for path in ("/only-here/1", "/only-here/2", "/nowhere/3"):
            async with client.get(path):
                pass
        async with client.get("/metrics") as answer:
            text = await answer.text()
            assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'fn_api_request_count{method="GET",path="/only-here/{id}"} 2.0' in text
    assert 'path="unknown",status="404"' in text
    assert "/nowhere" not in text
    assert "# TYPE fn_api_request_count counter" in text
    assert "# TYPE fn_process_open_fds gauge" in text


async def test_a_node_is_ready_when_nothing_speaks_against_it():
    reasons = ["The database does not answer"]
    async with node(ready=lambda: reasons[0]) as (client, _):
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.json()) == (503, {"message": reasons[0]})
        reasons[0] = ""
        async with client.get("/readyz") as answer:
            assert answer.status == 200
        async with client.get("/healthz") as answer:
            assert answer.status == 200


async def test_requests_in_flight_end_before_the_block_does():
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(request):
        arrived.set()
        await go.wait()
        return json_response({"stopping": stopping(request).is_set()})

    async with aiohttp.ClientSession() as client:
        async with serving([web.get("/slow", slow)], settings(), node_type="test") as port:
            url = f"http://127.0.0.1:{port}/slow"

            async def fetch():
                async with client.get(url) as answer:
                    return await answer.json()

            fetched = asyncio.create_task(fetch())
            await arrived.wait()
            asyncio.get_running_loop().call_later(0.1, go.set)
        assert await fetched == {"stopping": True}
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get(url)


async def test_the_drain_is_bounded():
    arrived = asyncio.Event()

    async def endless(request):
        arrived.set()
        await asyncio.Event().wait()

    async with aiohttp.ClientSession() as client:
        async with serving([web.get("/x", endless)], settings(drain=0.05), node_type="test") as port:
            request = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/x"))
            await arrived.wait()
        with pytest.raises(aiohttp.ClientError):
            await request


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"hello\r\n\r\n", 400, "This is no HTTP request: "),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBearer secret\r\n\r\n", 400, "This is no HTTP request: "),
        (b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n", 400, "This is no HTTP request: its address"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: " + b"secret" * 4000 + b"\r\n\r\n",
            431,
            "Request header too large: a line of it has more than 16384 bytes (FN_HTTP_MAX_HEADER_SIZE)",
        ),
    ],
)
async def test_what_is_no_request_is_answered_with_the_reason_and_none_of_its_bytes(sent, status, words):
    async with node() as (_, port):
        head, _, body = (await raw(port, sent)).partition(b"\r\n\r\n")
        assert head.split()[1] == str(status).encode()
        assert b"application/json" in head
        said = json.loads(body)["message"]
        assert said.startswith(words)
        assert "secret" not in said


async def test_a_taken_port_is_an_os_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="address already in use"):
            async with serving([], settings(port=taken.getsockname()[1]), node_type="test"):
                pass


async def test_a_runner_node_refuses_management():
    async with node(*runner_refusals()) as (client, _):
        for method, path in (
            ("GET", "/v1/apps"),
            ("POST", "/v1/apps"),
            ("DELETE", "/v1/"),
            ("GET", "/v1/x/y"),
        ):
            async with client.request(method, path) as answer:
                assert answer.status == 400
                assert await answer.json() == {"error": {"message": errors.ManageOnRunnerNode.text}}
        async with client.get("/v1") as answer:
            assert answer.status == 404


async def test_versions_that_functions_claim_do_not_make_series_without_end():
    async def handler(request):
        version = request.match_info["version"]
        return web.Response(headers={"Fn-Fdk-Version": f"fdk/{version}" if version != "odd" else "a b"})

    async with node(web.get("/fdk/{version}", handler, allow_head=False)) as (client, _):
        for version in [*range(telemetry.MAX_FDK_VERSIONS + 20), "odd"]:
            async with client.get(f"/fdk/{version}") as answer:
                assert answer.status == 200
        async with client.get("/metrics") as answer:
            lines = [line for line in (await answer.text()).splitlines() if 'path="/fdk/{version}"' in line]
    versions = set(re.findall(r'fn_fdk_version="([^"]*)"', "\n".join(lines)))
    assert "other" in versions
    assert "a b" not in versions
    assert len(versions) <= telemetry.MAX_FDK_VERSIONS + 1


async def test_the_trace_of_a_request_is_that_of_its_handler_only():
    async def handler(request):
        return json_response(telemetry.trace_headers())

    async with node(web.get("/x", handler, allow_head=False)) as (client, _):
        parent = f"00-{0xABC:032x}-{0xDEF:016x}-01"
        async with client.get("/x", headers={"traceparent": parent}) as answer:
            assert (await answer.json())["traceparent"] == parent
        async with client.get("/x") as answer:
            assert await answer.json() == {}


async def test_a_client_that_hangs_up_leaves_no_traceback(caplog):
    arrived, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        arrived.set()
        await go.wait()
        try:
            while True:
                await response.write(b"x" * 1000)
        finally:
            ended.set()

    async with node(web.get("/x", handler)) as (_, port):
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await arrived.wait()
        writer.transport.abort()
        go.set()
        await asyncio.wait_for(ended.wait(), 60)
    assert "Traceback" not in caplog.text


def waiting(length, path="/echo", expect="100-continue"):
    lines = ("Host: x", "Connection: close", f"Expect: {expect}", f"Content-Length: {length}", "", "")
    return "\r\n".join((f"POST {path} HTTP/1.1", *lines)).encode()


async def test_a_client_that_waits_is_told_to_go_on():
    async with node(web.post("/echo", echo)) as (_, port):
        answer = await raw(port, waiting(5) + b"hello")
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nhello")


async def test_a_client_that_waits_to_send_too_much_is_refused_at_once():
    async with node(web.post("/echo", echo), max_request_size=10) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(waiting(11))
        # The connection stays open for a while, for clients that send the body all the same.
        answer = await asyncio.wait_for(reader.readuntil(b"}\n"), 60)
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'{"message":"Content-Length too large for this server, 11 > max 10"}' in answer


async def test_an_expectation_that_nobody_knows_is_refused_as_json():
    async with node(web.post("/v1/echo", echo)) as (_, port):
        answer = await raw(port, waiting(0, path="/v1/echo", expect="miracle"))
        assert answer.startswith(b"HTTP/1.1 417 ")
        assert answer.endswith(b'{"error":{"message":"Unknown expectation: miracle"}}\n')


async def in_pieces(body):
    while piece := body.read(65536):
        yield piece


@pytest.mark.parametrize("chunked", [False, True])
async def test_runner_nodes_may_send_what_a_client_s_body_becomes_in_json(chunked):
    most = 2 * 1000 + (1 << 20)
    async with node(web.post("/v1/runner/echo", echo), max_request_size=1000) as (client, _):
        for size, status in ((most, 200), (most + 1, 413)):
            body = io.BytesIO(b"x" * size)
            data = in_pieces(body) if chunked else body
            async with client.post("/v1/runner/echo", data=data) as answer:
                assert answer.status == status
