"""The default format: one container per call, the body on stdin, the answer on stdout.

Source: wire-notes of Fn 0.3.484 as recorded in tests/wire (inv-default-*, inv-errors-default).
"""

from __future__ import annotations

from runner_node.protocols.contract import AnswerParser, Format, StdioCall
from runner_node.protocols.headers import given, plain
from runner_node.protocols.http_stream import Response
from shared_models import errors


def environment(call: StdioCall) -> dict[str, str]:
    """What a container that serves *call* alone finds in its environment besides the configuration."""
    env = {
        "FN_DEADLINE": call.deadline,
        "FN_METHOD": call.method,
        "FN_REQUEST_URL": plain(call.url),
        "FN_CALL_ID": call.id,
    }
    for name, values in given(call.headers).items():
        env[f"FN_HEADER_{name}"] = ", ".join(values)
    # A NUL ends a variable's value: the engine would refuse the container.
    return {name: value.replace("\0", " ") for name, value in env.items()}


class DefaultFormat(Format):
    """Stdin ends after the body, stdout is the answer; its status is 200 whatever it says."""

    name = "default"
    hot = False

    def encode(self, call: StdioCall) -> bytes:
        return call.body

    def parser(self, call: StdioCall, *, max_body: int = 0) -> AnswerParser:
        return _Output(max_body)


class _Output(AnswerParser):
    """All of stdout; only its end completes it."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._max_body and self._size > self._max_body:
            self._pieces.clear()
            raise errors.FunctionAnswerTooLarge
        self._pieces.append(data)

    def end_of_stream(self) -> None:
        self.done = True

    def response(self) -> Response:
        return Response(200, [], self.log_text())

    def log_text(self) -> bytes:
        return b"".join(self._pieces)
