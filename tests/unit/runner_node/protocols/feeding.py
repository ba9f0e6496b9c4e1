"""What the tests of all formats need: a call, and its answer fed in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runner_node.protocols.contract import AnswerParser, StdioCall
from runner_node.protocols.formats import format_of

URL = "http://host:8080/r/app/f?x=1&y=a%20b&z"


def a_call(**fields: object) -> StdioCall:
    given: dict[str, object] = {
        "id": "01CGXHPTRGFW00008ZJ0000001",
        "deadline": "2018-06-05T10:15:00.123Z",
        "method": "POST",
        "url": URL,
        "headers": [
            ("Host", "host:8080"),
            ("X-Custom", "one"),
            ("accept", "*/*"),
            ("x-custom", "two"),
            ("Content-Type", "application/json"),
        ],
        "content_type": "application/json",
        "body": b'{"a":1}',
    }
    return StdioCall(**{**given, **fields})  # type: ignore[arg-type]


def fed(name: str, *pieces: bytes, call: StdioCall | None = None, max_body: int = 0) -> AnswerParser:
    """The parser of format *name* after *pieces*."""
    parser = format_of(name).parser(call or a_call(), max_body=max_body)
    for piece in pieces:
        parser.feed(piece)
    return parser


def cuts(raw: bytes) -> Iterator[Iterable[bytes]]:
    """*raw* whole, cut in two at every byte, and byte by byte."""
    yield [raw]
    for at in range(1, len(raw)):
        yield [raw[:at], raw[at:]]
    yield [raw[i : i + 1] for i in range(len(raw))]
