"""What a function format over stdin and stdout means: bytes in, an answer out, no I/O.

Suite: tests/unit/runner_node/protocols. ``http_stream`` is apart: it goes over a socket.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from runner_node.protocols.http_stream import Header, Response


class StdioCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call as formats see it. *deadline* is wire text; *url* is the whole URL of the client's request."""

    id: str
    deadline: str
    method: str
    url: str
    headers: list[Header]
    content_type: str
    body: bytes


class AnswerParser(ABC):
    """Takes what a function writes to stdout in reply to one call, in any pieces."""

    done: bool = False
    """The answer is complete."""
    clean: bool = True
    """Nothing but space came after the answer: the container may take another call."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Raises a BadFunction for what is no answer, or is too large."""

    @abstractmethod
    def end_of_stream(self) -> None:
        """stdout is closed; raises a BadFunction when the answer is not complete."""

    @abstractmethod
    def response(self) -> Response:
        """The answer once ``done``, as a client is to get it."""

    @abstractmethod
    def log_text(self) -> bytes:
        """The answer as it is appended to the log of an async call."""


class Format(ABC):
    """One function format."""

    name: str
    hot: bool
    """Whether a container serves one call after another; else it serves one, and stdin ends after it."""

    @abstractmethod
    def encode(self, call: StdioCall) -> bytes:
        """What is written to stdin; raises an FnError when the call cannot be put in this format."""

    @abstractmethod
    def parser(self, call: StdioCall, *, max_body: int = 0) -> AnswerParser:
        """For the answer to *call*; *max_body* in bytes, 0 for no limit."""
