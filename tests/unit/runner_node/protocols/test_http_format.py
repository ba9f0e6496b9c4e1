"""The http format: requests as Go's client writes them, answers as its parser takes them."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner_node.protocols.formats import format_of
from runner_node.protocols.http_format import MAX_HEAD
from shared_models import errors
from tests.unit.runner_node.protocols.feeding import URL, a_call, cuts, fed

ANSWER = (
    b"HTTP/1.1 201 Created\r\nContent-Type: x/y\r\nx-fn: 1\r\nX-Fn: 2\r\nSet-Cookie: a=b\r\n"
    b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX-Trailer: t\r\n\r\n"
)
BARE = b"HTTP/1.0 200 OK\nContent-Length: 5\n\nhello"


def encoded(**fields: object) -> bytes:
    return format_of("http").encode(a_call(**fields))


class Request:
    """A request read by a parser that knows nothing of ours."""

    def __init__(self, raw: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.url = self.body = b""
        self.complete = 0
        httptools.HttpRequestParser(self).feed_data(raw)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def test_a_request_has_the_headers_of_fn_in_the_order_of_go():
    assert encoded() == (
        b"POST /r/app/f?x=1&y=a%20b&z HTTP/1.1\r\nHost: host:8080\r\nUser-Agent: Go-http-client/1.1\r\n"
        b"Content-Length: 7\r\nAccept: */*\r\nContent-Type: application/json\r\n"
        b"Fn_call_id: 01CGXHPTRGFW00008ZJ0000001\r\nFn_deadline: 2018-06-05T10:15:00.123Z\r\n"
        b"Fn_method: POST\r\nFn_request_url: " + URL.encode() + b"\r\nX-Custom: one\r\nX-Custom: two\r\n\r\n"
        b'{"a":1}'
    )


def test_what_a_client_says_of_the_call_is_overwritten_and_its_framing_replaced():
    headers = [
        ("FN_CALL_ID", "mine"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "99"),
        ("User-Agent", "golden/1"),
        ("Connection", "keep-alive"),
    ]
    request = Request(encoded(headers=headers, method="GET", body=b""))
    assert request.headers[:3] == [
        (b"Host", b"host:8080"),
        (b"User-Agent", b"golden/1"),
        (b"Connection", b"keep-alive"),
    ]
    assert (b"Fn_call_id", b"01CGXHPTRGFW00008ZJ0000001") in request.headers
    assert [name for name, _ in request.headers].count(b"Fn_call_id") == 1


@pytest.mark.parametrize(
    ("method", "said"), [("POST", True), ("PUT", True), ("GET", False), ("DELETE", False)]
)
def test_an_empty_body_has_a_length_where_a_body_is_expected(method, said):
    assert (b"Content-Length: 0\r\n" in encoded(method=method, body=b"")) is said


def test_an_empty_user_agent_is_left_out():
    assert b"User-Agent" not in encoded(headers=[("User-Agent", "")])


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("http://h", b"h", b"/"),
        ("http://h?x", b"h", b"/?x"),
        ("https://h:1/a b\r\nX: y", b"h:1", b"/a%20b%0D%0AX:%20y"),
        ("http://h\r\nX:/é\udcff", b"hX:", b"/%C3%A9%FF"),
    ],
)
def test_a_url_cannot_break_out_of_the_request_line(url, host, target):
    request = Request(encoded(url=url, headers=[]))
    assert request.url == target
    assert request.headers[0] == (b"Host", host)
    assert request.complete == 1


def test_a_header_cannot_break_out_and_a_method_has_to_be_one():
    assert b"\r\nX-A: 1  X-B: 2\r\n" in encoded(headers=[("X-A", "1\r\nX-B: 2"), ("bad name", "x")])
    with pytest.raises(errors.Invalid, match="cannot be put in an HTTP request"):
        encoded(method="GET / HTTP/1.1\r\n")


@given(
    st.binary(),
    st.lists(
        st.tuples(st.from_regex("X-[a-z]{1,3}", fullmatch=True), st.text("abc é", max_size=4)), max_size=4
    ),
)
@settings(deadline=None, max_examples=40)
def test_any_request_can_be_read_again(body, headers):
    request = Request(encoded(body=body, headers=headers))
    assert request.body == body
    assert request.complete == 1
    sent = sorted((name.capitalize(), value.strip()) for name, value in headers)
    got = sorted(
        (name.decode().capitalize(), value.decode())
        for name, value in request.headers
        if name.startswith(b"X-")
    )
    assert got == sent


@pytest.mark.parametrize("raw", [ANSWER, CHUNKED, BARE], ids=["length", "chunked", "bare line feeds"])
def test_an_answer_may_be_cut_at_every_byte(raw):
    for pieces in cuts(b"\r\n" + raw + b"\r\n"):
        parser = fed("http", *pieces)
        assert parser.done
        assert parser.clean
        assert parser.response().body == b"hello"
        assert parser.response().status == (201 if raw is ANSWER else 200)


def test_headers_keep_their_repetitions_and_lose_what_is_about_the_connection():
    response = fed("http", ANSWER).response()
    assert response.headers == [("Content-Type", "x/y"), ("X-Fn", "1"), ("X-Fn", "2"), ("Set-Cookie", "a=b")]
    assert not response.content_type_wins
    assert fed("http", CHUNKED).response().headers == []


def test_an_interim_answer_is_passed_over():
    parser = fed("http", b"HTTP/1.1 100 Continue\r\nX-Not: this\r\n\r\n" + ANSWER)
    assert parser.response().status == 201
    assert ("X-Not", "this") not in parser.response().headers


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none_whatever_length_is_named(status):
    parser = fed("http", b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n" % status)
    assert parser.done
    assert parser.response().body == b""
    parser.feed(b"{}")
    assert not parser.clean


def test_nothing_follows_an_answer_to_head():
    head, body = ANSWER[:-5], ANSWER[-5:]
    for pieces in cuts(head):
        parser = fed("http", *pieces, call=a_call(method="HEAD"))
        assert parser.done
        assert parser.clean
        assert parser.response().status == 201
    parser.feed(body)
    assert not parser.clean
    assert parser.response().body == b""


@pytest.mark.parametrize("extra", [b"x", b"H", b"HTTP/1.1 200 OK\r\n\r\n", b"\r\n{}", b"\0"])
def test_garbage_after_an_answer_costs_the_container_but_not_the_answer(extra):
    for pieces in ([ANSWER + extra], [ANSWER, extra], [ANSWER[:-1], ANSWER[-1:] + extra]):
        parser = fed("http", *pieces)
        assert parser.response().body == b"hello"
        assert not parser.clean


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\n\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", b"{}",
        b"leftHTTP/1.1",
        b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)  # fmt: skip
def test_what_is_not_http_is_an_error_as_soon_as_that_shows(raw):
    for pieces in ([raw], [raw[i : i + 1] for i in range(len(raw))]):
        with pytest.raises(
            errors.FunctionAnswerInvalid, match=r"^invalid http response from function err: ."
        ):
            fed("http", *pieces)


@pytest.mark.parametrize("raw", [ANSWER, CHUNKED], ids=["length", "chunked"])
def test_an_answer_that_ends_early_is_an_error(raw):
    for cut in range(len(raw)):
        with pytest.raises(errors.FunctionAnswerInvalid, match="unexpected EOF"):
            fed("http", raw[:cut]).end_of_stream()


def test_an_answer_without_a_length_goes_on_until_the_end():
    parser = fed("http", b"HTTP/1.1 200 OK\r\n\r\nuntil ", b"the end")
    assert not parser.done
    parser.end_of_stream()
    assert parser.response().body == b"until the end"


@pytest.mark.parametrize("raw", [ANSWER, CHUNKED, b"HTTP/1.1 200 OK\r\n\r\nhello"])
def test_an_answer_may_be_as_large_as_the_limit_and_no_larger(raw):
    fed("http", raw, max_body=5)
    for pieces in cuts(raw):
        with pytest.raises(errors.FunctionAnswerTooLarge, match=r"^function response too large$"):
            fed("http", *pieces, max_body=4)


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", CHUNKED[:-4], CHUNKED[:47] + b"1;"])
def test_a_head_trailer_or_chunk_extension_that_never_ends_is_an_error(start):
    parser = fed("http", start)
    for _ in range(16):
        parser.feed(b"x" * (MAX_HEAD // 16 - 8))
    with pytest.raises(errors.FunctionHeadersTooLarge):
        parser.feed(b"x" * 256)


@given(st.binary(), st.integers(200, 999).filter(lambda status: status not in (204, 304)), st.integers(0, 80))
@settings(deadline=None, max_examples=60)
def test_any_body_comes_out_unchanged(body, status, at):
    raw = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body
    parser = fed("http", raw[:at], raw[at:])
    assert parser.done
    assert parser.clean
    assert (parser.response().status, parser.response().body) == (status, body)
    again = fed("http", parser.log_text())
    assert (again.response().status, again.response().body) == (status, body)


def test_the_log_has_the_whole_answer_with_its_length():
    raw = (
        b"HTTP/1.1 201 Created\r\nX-Fn: 1\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n9\r\n"
        + b'{"out":1}\r\n0\r\n\r\n'
    )
    assert fed("http", raw).log_text() == (
        b'HTTP/1.1 201 Created\r\nContent-Length: 9\r\nA: b\r\nX-Fn: 1\r\n\r\n{"out":1}'
    )
    assert fed("http", b"HTTP/1.1 204\r\n\r\n").log_text() == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert (
        fed("http", b"HTTP/1.1 599\r\nContent-Length: 0\r\n\r\n")
        .log_text()
        .startswith(b"HTTP/1.1 599 status code 599")
    )
