"""The http-stream format: what goes to a function, and what comes back in any pieces."""

from __future__ import annotations

import gzip

import pytest

from runner_node.protocols.http_stream import Response, ResponseParser, encode_head
from shared_models import errors

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nX-One: 1\r\nX-One: 2\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: x\r\n\r\n"
    b"3\r\nhel\r\n2\r\nlo\r\n0\r\nX-Trailer: t\r\n\r\n"
)


def parse(*pieces: bytes, **limits: int) -> tuple[ResponseParser, Response]:
    parser = ResponseParser(**limits)  # type: ignore[arg-type]
    for piece in pieces:
        parser.feed(piece)
    return parser, parser.response()


@pytest.mark.parametrize("raw", [PLAIN, CHUNKED], ids=["length", "chunked"])
def test_a_response_may_be_cut_at_every_byte(raw):
    for at in range(len(raw) + 1):
        parser, response = parse(raw[:at], raw[at:])
        assert parser.done
        assert parser.reusable
        assert response.body == b"hello"
    parser, response = parse(*(raw[i : i + 1] for i in range(len(raw))))
    assert parser.done
    assert response.body == b"hello"


def test_headers_keep_their_order_and_their_repetitions():
    _, response = parse(PLAIN)
    assert response.headers == [("Content-Type", "text/x"), ("X-One", "1"), ("X-One", "2")]


def test_hop_by_hop_headers_do_not_pass():
    raw = PLAIN.replace(b"X-One: 1", b"Connection: close\r\nUpgrade: y\r\nProxy-Connection: z")
    parser, response = parse(raw)
    assert response.headers == [("Content-Type", "text/x"), ("X-One", "2")]
    assert not parser.reusable


def test_an_answer_may_be_ended_by_closing_the_connection():
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    assert not parser.done
    parser.end_of_stream()
    assert parser.response().body == b"until the end"
    assert not parser.reusable


@pytest.mark.parametrize("cut", range(len(PLAIN)))
def test_a_connection_closed_too_early_is_an_error(cut):
    parser = ResponseParser()
    parser.feed(PLAIN[:cut])
    with pytest.raises(errors.FunctionResponseError):
        parser.end_of_stream()


@pytest.mark.parametrize(
    "garbage", [b"garbage\r\n\r\n", b"\x00\x01\x02\xff", b"HTTP/1.1 abc\r\n\r\n", b"{}\n"]
)
def test_what_is_not_http_is_an_error(garbage):
    with pytest.raises(errors.FunctionResponseError):
        ResponseParser().feed(garbage)


def test_bytes_after_an_answer_cost_the_connection_but_not_the_answer():
    parser, response = parse(PLAIN + b"HTTP/1.1 200 OK\r\n")
    assert response.body == b"hello"
    assert not parser.reusable


def test_bytes_that_come_later_cost_the_connection_too():
    parser, response = parse(PLAIN, b"more")
    assert response.body == b"hello"
    assert not parser.reusable


def test_a_body_over_the_limit_is_an_error_and_one_at_the_limit_is_not():
    assert parse(PLAIN, max_body=5)[1].body == b"hello"
    with pytest.raises(errors.FunctionResponseTooLarge):
        parse(PLAIN, max_body=4)
    with pytest.raises(errors.FunctionResponseTooLarge):
        parse(CHUNKED, max_body=4)


def test_a_head_over_the_limit_is_an_error():
    with pytest.raises(errors.FunctionHeadersTooLarge):
        parse(PLAIN.replace(b"X-One: 1", b"X-One: " + b"v" * 4000), max_head=1024)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (502, errors.FunctionFailed),
        (504, errors.CallTimedOut),
        (201, errors.FunctionInvalidResponse),
        (404, errors.FunctionInvalidResponse),
        (500, errors.FunctionInvalidResponse),
    ],
)
def test_any_status_but_200_is_an_error(status, error):
    with pytest.raises(error):
        parse(b"HTTP/1.1 %d X\r\nContent-Length: 1\r\n\r\nb" % status)


def test_a_continue_before_the_answer_is_skipped():
    assert parse(b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN)[1].body == b"hello"


def test_gzip_that_we_asked_for_is_undone_and_bounded():
    packed = gzip.compress(b"x" * 1000)
    raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)
    parser = ResponseParser(gunzip=True)
    parser.feed(raw)
    response = parser.response()
    assert response.body == b"x" * 1000
    assert response.headers == []
    bomb = ResponseParser(gunzip=True, max_body=999)
    bomb.feed(raw)
    with pytest.raises(errors.FunctionResponseTooLarge):
        bomb.response()


def test_gzip_that_the_client_asked_for_passes():
    packed = gzip.compress(b"x")
    raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)
    assert parse(raw)[1].body == packed


def test_the_head_says_what_functions_rely_on():
    head, gunzip = encode_head([("x-custom", "1"), ("Accept", "*/*")], "CALL", "2018-06-01T00:00:00Z")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /call HTTP/1.1"
    assert {
        "Host: localhost", "Transfer-Encoding: chunked", "Fn-Call-Id: CALL",
        "Fn-Deadline: 2018-06-01T00:00:00Z", "X-Custom: 1",
        "Accept: */*", "User-Agent: Go-http-client/1.1", "Accept-Encoding: gzip",
    } < set(lines)  # fmt: skip
    assert head.endswith(b"\r\n\r\n")
    assert gunzip


def test_a_client_cannot_forge_the_call_id_or_the_framing():
    forged = [
        ("fn-call-id", "spoof"), ("FN-DEADLINE", "spoof"), ("Content-Length", "3"), ("Host", "evil"),
        ("Connection", "close"), ("TE", "gzip"), ("Transfer-Encoding", "x"),
    ]  # fmt: skip
    head, _ = encode_head(forged, "CALL", "D")
    assert b"spoof" not in head
    assert b"evil" not in head
    assert head.lower().count(b"transfer-encoding") == 1
    assert b"Content-Length" not in head
    assert b"te: gzip" not in head.lower()


def test_trailers_may_be_asked_for():
    assert b"Te: trailers\r\n" in encode_head([("TE", "trailers")], "C", "D")[0]


def test_trailers_are_nobodys_headers():
    raw = CHUNKED.replace(b"X-Trailer: t", b"Fn-Http-Status: 500\r\nX-Trailer: t")
    _, response = parse(raw)
    assert response.headers == []


def test_a_header_that_is_not_utf_8_is_read_as_latin_1():
    raw = PLAIN.replace(b"X-One: 1", b"X-One: caf\xe9").replace(b"X-One: 2", "X-One: café €".encode())
    _, response = parse(raw)
    assert [value for name, value in response.headers if name == "X-One"] == ["café", "café €"]


def gzipped(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def test_all_members_of_a_gzip_body_are_read():
    raw = gzipped(gzip.compress(b"one ") + gzip.compress(b"two"))
    assert parse(raw, gunzip=True, max_body=100)[1].body == b"one two"
    with pytest.raises(errors.FunctionResponseTooLarge):
        parse(gzipped(gzip.compress(b"x" * 60) * 2), gunzip=True, max_body=100)
    assert parse(gzipped(gzip.compress(b"x" * 50) * 2), gunzip=True, max_body=100)[1].body == b"x" * 100


def test_a_gzip_body_that_ends_too_early_is_an_error():
    whole = gzip.compress(bytes(range(256)))
    for cut in (1, 8, len(whole) - 20):
        with pytest.raises(errors.FunctionResponseError) as raised:
            parse(gzipped(whole[:-cut]), gunzip=True)
        assert "ends too early" in raised.value.detail
    assert parse(gzipped(b""), gunzip=True)[1].body == b""
