"""Answers that are passed on as they come: what the parser gives in pieces, however they arrive."""

from __future__ import annotations

import gzip
import itertools
import random
from collections.abc import Iterable

import pytest

from runner_node.protocols.gunzip import PIECE, Gunzip
from runner_node.protocols.http_stream import ResponseParser
from runner_node.sinks import Kept
from shared_models import errors

BODY = bytes(range(256)) * 8
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n"
LENGTH = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
PACKED = gzip.compress(BODY[:1000]) + gzip.compress(BODY[1000:])
GZIP = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(PACKED), PACKED)


def passed_on(parser: ResponseParser, pieces: Iterable[bytes]) -> bytes:
    """The body of the answer that arrives in *pieces*, as whoever passes it on gets it."""
    got = b""
    for piece in pieces:
        parser.feed(piece)
        if going(parser):
            got += taken(parser)
            assert not parser.streamed.held
    assert parser.done
    if not going(parser):
        return parser.response().body
    parser.streamed.end()
    return got


def going(parser: ResponseParser) -> bool:
    """Whether what comes is to be taken out."""
    return parser.streamed is not None and parser.streamed.goes


def taken(parser: ResponseParser) -> bytes:
    """What has come and was not taken before."""
    return b"".join(parser.streamed.pieces())


@pytest.mark.parametrize("raw", [LENGTH, CHUNKED, GZIP], ids=["length", "chunked", "gzip"])
def test_an_answer_that_is_passed_on_may_be_cut_at_every_byte(raw):
    for at in range(len(raw) + 1):
        parser = ResponseParser(gunzip=True, stream_above=100)
        assert passed_on(parser, (raw[:at], raw[at:])) == BODY
        assert parser.reusable
    single = (raw[i : i + 1] for i in range(len(raw)))
    assert passed_on(ResponseParser(gunzip=True, stream_above=100), single) == BODY


@pytest.mark.parametrize("seed", range(20))
def test_an_answer_that_is_passed_on_may_come_in_any_pieces(seed):
    draw = random.Random(seed)
    for raw in (LENGTH, CHUNKED, GZIP):
        cuts = sorted({0, len(raw), *(draw.randrange(len(raw)) for _ in range(draw.randrange(20)))})
        pieces = [raw[a:b] for a, b in itertools.pairwise(cuts)]
        parser = ResponseParser(gunzip=True, stream_above=draw.randrange(3000))
        assert passed_on(parser, pieces) == BODY


def test_an_answer_that_comes_in_one_piece_is_whole_whatever_its_size():
    parser = ResponseParser(stream_above=10)
    parser.feed(LENGTH)
    assert parser.done
    assert not going(parser)
    assert parser.response().body == BODY


def test_an_announced_answer_is_passed_on_once_its_head_is_there():
    for limit, goes in ((len(BODY), False), (len(BODY) - 1, True)):
        parser = ResponseParser(stream_above=limit)
        parser.feed(LENGTH[:-1])
        assert going(parser) is goes
        assert parser.streamed.length == len(BODY)


def test_an_answer_of_unknown_length_is_passed_on_once_it_is_large():
    parser = ResponseParser(stream_above=5)
    parser.feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    assert not going(parser)
    parser.feed(b"1\r\n!\r\n")
    assert going(parser)
    assert taken(parser) == b"hello!"


def test_events_are_passed_on_at_once():
    parser = ResponseParser(stream_above=1000)
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream;charset=utf-8\r\n\r\n")
    assert going(parser)


def test_only_success_is_passed_on_and_only_to_someone():
    for status, limit in ((502, 1), (200, None)):
        parser = ResponseParser(stream_above=limit)
        parser.feed(b"HTTP/1.1 %d X\r\nContent-Length: 100\r\n\r\n%b" % (status, b"x" * 50))
        assert parser.streamed is None


def test_an_announced_answer_over_the_limit_is_an_error_before_its_body_comes():
    parser = ResponseParser(max_body=len(BODY) - 1, stream_above=10)
    with pytest.raises(errors.FunctionResponseTooLarge):
        parser.feed(LENGTH[: LENGTH.index(BODY)])


def test_what_is_passed_on_counts_for_the_limit():
    parser = ResponseParser(max_body=9, stream_above=5)
    parser.feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n")
    assert taken(parser) == b"hello!"
    with pytest.raises(errors.FunctionResponseTooLarge):
        parser.feed(b"4\r\nmore\r\n")


@pytest.mark.parametrize("cut", range(1, len(PACKED), 7))
def test_gzip_that_ends_too_early_is_an_error_unless_a_member_has_just_ended(cut):
    inflater = Gunzip()
    plain = b"".join(inflater.pieces(PACKED[:cut]))
    assert BODY.startswith(plain)
    if plain != BODY[:1000]:
        with pytest.raises(errors.FunctionResponseError):
            inflater.end()


def test_what_swells_comes_in_pieces_and_within_the_limit():
    packed = gzip.compress(bytes(100 * PIECE + 1))
    pieces = [len(piece) for piece in Gunzip().pieces(packed)]
    assert max(pieces) <= PIECE
    assert sum(pieces) == 100 * PIECE + 1
    assert sum(len(piece) for piece in Gunzip(100 * PIECE + 1).pieces(packed)) == 100 * PIECE + 1
    with pytest.raises(errors.FunctionResponseTooLarge):
        list(Gunzip(100 * PIECE).pieces(packed))


async def test_what_nobody_waits_for_is_kept_up_to_a_limit():
    kept = Kept(7)
    for piece in (b"hello", b"world", b"more"):
        await kept.write(piece)
    assert kept.body == b"hellowo"
