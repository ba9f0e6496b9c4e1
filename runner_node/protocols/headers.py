"""Headers on their way to a function and back, as Go's HTTP package sees them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

from runner_node.protocols.http_stream import Header, passes
from shared_models.config import canonical_header

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Go keeps these out of a request's headers: they are about the connection, or have a place of their own.
_NOT_GIVEN = frozenset({"Host", "Transfer-Encoding", "Trailer"})
_BREAKS = str.maketrans("\r\n\0", "   ")


def _one_each(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd", error.start + 1


codecs.register_error("fn-one-each", _one_each)


def text_of(data: bytes) -> str:
    """*data* as text; each byte that is not UTF-8 becomes one U+FFFD, as in Go."""
    return data.decode("utf-8", "fn-one-each")


def plain(text: str) -> str:
    """*text* with what is smuggled bytes in it (surrogates) as U+FFFD, so that any encoder takes it."""
    return text if text.isascii() else text_of(text.encode("utf-8", "surrogateescape"))


def one_line(value: str) -> str:
    """A header's value that cannot break out of its line."""
    return value.translate(_BREAKS).strip(" \t")


def given(headers: Iterable[Header]) -> dict[str, list[str]]:
    """What a function is to see of a client's headers: sorted canonical names, each with its values."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        canonical = canonical_header(name)
        if TOKEN.fullmatch(name) and canonical not in _NOT_GIVEN:
            found.setdefault(canonical, []).append(plain(value))
    return dict(sorted(found.items()))


def answered(headers: Iterable[Header]) -> list[Header]:
    """What a client is to see of a function's headers: none of those about length or connection."""
    return [
        (canonical_header(name), one_line(value))
        for name, value in headers
        if TOKEN.fullmatch(name) and name.lower() != "content-length" and passes(name, value)
    ]
