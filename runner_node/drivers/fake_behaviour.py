"""What scripted containers do: what happens to those of an image, and what their function answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from runner_node.drivers.contract import Exit
from shared_models import errors

if TYPE_CHECKING:
    from runner_node.drivers.fake_container import FakeContainer

FAILED = Exit(1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call as the function sees it; header names in lower case."""

    line: str
    headers: Mapping[str, str]
    body: bytes
    container: FakeContainer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the function answers; *log* is written to its output first."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/octet-stream"),)
    body: bytes = b""
    log: bytes = b""


def echo(request: Request) -> Answer:
    """The default function: the body comes back."""
    return Answer(body=request.body)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What happens, in the order in which it happens. Counts are of calls, beginning with 1."""

    pull_error: errors.FnError | None = None
    start_error: errors.FnError | None = None
    output: bytes = b""
    """Written when it starts."""
    exits_at_start: Exit | None = None
    socket: str = "listens"
    """``listens``, ``links`` (a link to the socket, as the FDKs make it), ``file``, or ``never``."""
    start_delay: float = 0.0
    """Seconds until there is a socket."""
    function: Callable[[Request], Answer] = echo
    call_delay: float = 0.0
    hangs: bool = False
    """Takes calls and never answers."""
    garbage: bytes = b""
    """Sent instead of an answer; then the connection is closed."""
    exits_in_call: int = 0
    """The call in the middle of whose answer it exits."""
    exits_after: int = 0
    """The call after whose answer it exits."""
    exit: Exit = FAILED
    """How it exits in or after a call."""
    stdio: Callable[[bytes], bytes] = bytes
    """What it says on stdout to each piece of stdin; to ``b""``, the end, before it exits with 0."""
    sample: Mapping[str, int] = dataclasses.field(default_factory=dict)
