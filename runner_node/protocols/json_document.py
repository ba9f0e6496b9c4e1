"""Answers that are one JSON object: where it ends in a stream of bytes, and how large it may be."""

from __future__ import annotations

import re
from abc import abstractmethod

import msgspec

from runner_node.protocols.contract import AnswerParser
from runner_node.protocols.headers import text_of
from shared_models import errors

SPACE = b" \t\r\n"
# Groups are atomic, (?>(?:...)*), not possessive, (?:...)*+: the latter match wrongly before Python 3.11.5.
_S = rb"[ \t\r\n]*+"
_T = rb'(?>(?:[^"\\\x00-\x1f]++|\\[^\x00-\x1f])*)'
_SPACES = re.compile(_S)
_TEXT = re.compile(_T)
_NUMBER = re.compile(rb"[-+.0-9eE]*")
_SIMPLE = rb'(?:-?[0-9][-+.0-9eE]*+|"' + _T + rb'"|true|false|null)'
# More simple values of a list, and more members of an object that have them: passed over in one go.
_RUNS = {
    b"[": re.compile(b"(?>(?:" + _S + b"," + _S + _SIMPLE + b"(?=" + _S + rb"[,\]]))*)"),
    b"{": re.compile(
        b"(?>(?:" + _S + b"," + _S + b'"' + _T + b'"' + _S + b":" + _S + _SIMPLE + b"(?=" + _S + b"[,}]))*)"
    ),
}
_WORDS = (b"true", b"false", b"null")
_QUOTE, _BACKSLASH = b'"\\'
# An escape; group 1 is a surrogate without its other half.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

# What may come next.
_START, _VALUE, _FIRST_VALUE, _KEY, _FIRST_KEY, _COLON, _COMMA = range(7)
# The token that is being read.
_NOTHING, _STRING, _ESCAPED, _DIGITS, _WORD = range(5)


class ObjectScanner:
    """Takes JSON in any pieces and tells where its object (or ``null``) ends.

    Tokens are checked for their place, not to the last letter: a bad escape or number is left to the
    decoder. Every byte is looked at a fixed number of times, however small the pieces are.
    """

    __slots__ = ("_expect", "_open", "_token", "_word")

    def __init__(self) -> None:
        self._expect = _START
        self._open = bytearray()
        self._token = _NOTHING
        self._word = b""

    def feed(self, data: bytes) -> int:
        """The length of what of *data* belongs to the object, -1 when it goes on; ValueError: not JSON."""
        at, end = 0, len(data)
        while at < end:
            if self._token == _STRING:
                at = self._string(data, at)
            elif self._token == _ESCAPED:
                at, self._token = at + 1, _STRING
            elif self._token == _DIGITS:
                at = _end_of(_NUMBER, data, at)
                self._token = _NOTHING if at < end else _DIGITS
            elif self._token == _WORD:
                self._letter(data[at : at + 1])
                at += 1
            else:
                if self._expect == _COMMA:
                    at = _end_of(_RUNS[bytes(self._open[-1:])], data, at)
                at = _end_of(_SPACES, data, at)
                if at < end:
                    self._structure(data[at : at + 1])
                    at += 1 if self._token not in (_DIGITS, _WORD) else 0
            if self._expect == _COMMA and not self._open and self._token == _NOTHING:
                return at
        return -1

    def _string(self, data: bytes, at: int) -> int:
        at = _end_of(_TEXT, data, at)
        if at == len(data):
            return at
        if data[at] == _QUOTE:
            self._token = _NOTHING
        elif data[at] == _BACKSLASH:
            self._token = _ESCAPED
        else:
            raise _invalid(data[at : at + 1], "in string literal")
        return at + 1

    def _letter(self, letter: bytes) -> None:
        self._word += letter
        if self._word in _WORDS:
            self._token = _NOTHING
        elif not any(word.startswith(self._word) for word in _WORDS):
            raise _invalid(letter, f"in literal {self._word[:1].decode()}...")

    def _structure(self, byte: bytes) -> None:
        expect, top = self._expect, self._open[-1:]
        if expect == _START and byte not in (b"{", b"n"):
            raise _unlike_object(byte)
        if byte == b'"' and expect in (_KEY, _FIRST_KEY):
            self._expect, self._token = _COLON, _STRING
        elif byte == b":" and expect == _COLON:
            self._expect = _VALUE
        elif byte == b"," and expect == _COMMA:
            self._expect = _KEY if top == b"{" else _VALUE
        elif (byte == b"}" and top == b"{" and expect in (_FIRST_KEY, _COMMA)) or (
            byte == b"]" and top == b"[" and expect in (_FIRST_VALUE, _COMMA)
        ):
            self._open.pop()
            self._expect = _COMMA
        elif expect in (_START, _VALUE, _FIRST_VALUE):
            self._value(byte)
        else:
            raise _invalid(byte, _LOOKING_FOR[expect])

    def _value(self, byte: bytes) -> None:
        if byte in (b"{", b"["):
            self._open += byte
            self._expect = _FIRST_KEY if byte == b"{" else _FIRST_VALUE
            return
        if byte == b'"':
            self._token = _STRING
        elif byte in b"-0123456789":
            self._token = _DIGITS
        elif byte in b"tfn":
            self._token, self._word = _WORD, b""
        else:
            raise _invalid(byte, _LOOKING_FOR[_VALUE])
        self._expect = _COMMA


_LOOKING_FOR = {
    _VALUE: "looking for beginning of value",
    _KEY: "looking for beginning of object key string",
    _FIRST_KEY: "looking for beginning of object key string",
    _COLON: "after object key",
    _COMMA: "after a value",
}


def _end_of(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    found = pattern.match(data, at)
    return found.end() if found else at


def _invalid(byte: bytes, where: str) -> ValueError:
    return ValueError(f"invalid character {byte.decode('latin-1')!r} {where}")


def _unlike_object(byte: bytes) -> ValueError:
    kinds = {b"[": "array", b'"': "string", b"t": "bool", b"f": "bool"}
    kind = kinds.get(byte) or ("number" if byte in b"-0123456789" else "")
    return ValueError(f"{kind} in place of an object") if kind else _invalid(byte, _LOOKING_FOR[_VALUE])


def readable(document: bytes) -> bytes:
    """*document* as Go reads it: what is no text in it becomes U+FFFD, in bytes and in escapes."""
    try:
        document.decode()
    except UnicodeDecodeError:
        document = text_of(document).encode()
    if b"\\u" not in document:
        return document
    return _ESCAPE.sub(lambda match: b"\\ufffd" if match[1] else match[0], document)


class ObjectAnswer(AnswerParser):
    """One JSON object per answer; what it means is up to ``_take``.

    The object may be six times as long as the body in it (escapes), and 1 MiB more for the rest.
    """

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._max_size = 6 * max_body + (1 << 20) if max_body else 0
        self._scanner = ObjectScanner()
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        if self.done:
            self.clean = self.clean and not data.strip(SPACE)
            return
        if not self._size:
            data = data.lstrip(SPACE)
        end = self._end(data)
        self._size += len(data) if end < 0 else end
        if self._max_size and self._size > self._max_size:
            raise errors.FunctionAnswerTooLarge
        if end < 0:
            self._pieces.append(data)
            return
        self._pieces.append(data[:end])
        document = b"".join(self._pieces)
        self._pieces.clear()
        try:
            self._take(readable(document))
        except errors.InvalidJSON as exc:
            raise errors.FunctionAnswerInvalid("json", exc.detail) from None
        self.done = True
        self.clean = not data[end:].strip(SPACE)

    def _end(self, data: bytes) -> int:
        if not self._size and data.startswith(b"{"):
            # Nearly every answer comes whole and alone: the decoder tells so faster than we can.
            try:
                msgspec.json.decode(data, type=msgspec.Raw)
                return len(data.rstrip(SPACE))
            except (msgspec.DecodeError, RecursionError):
                pass
        try:
            return self._scanner.feed(data)
        except ValueError as exc:
            raise errors.FunctionAnswerInvalid("json", str(exc)) from None

    def end_of_stream(self) -> None:
        if not self.done:
            raise errors.FunctionAnswerInvalid("json", "unexpected EOF" if self._size else "EOF")

    def _fits(self, body: bytes) -> bytes:
        """*body*, for ``_take`` to check; raises FunctionAnswerTooLarge."""
        if self._max_body and len(body) > self._max_body:
            raise errors.FunctionAnswerTooLarge
        return body

    @abstractmethod
    def _take(self, document: bytes) -> None:
        """Decodes the whole *document*; raises InvalidJSON or a BadFunction."""
