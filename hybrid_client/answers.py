"""What an API node answered, and the errors that its answers stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from shared_models import errors, wire

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; header names as aiohttp has them, without regard to case."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def unknown_path(self) -> bool:
        """Whether the node does not know this endpoint, as opposed to what was asked for there."""
        return self.status == 404 and self.message.startswith("Path not found")

    @property
    def message(self) -> str:
        """The words of an error, of either shape; "" when there are none."""
        try:
            said = msgspec.json.decode(self.body, type=_Said)
        except msgspec.MsgspecError:
            return ""
        return said.message or said.error.message

    def error(self) -> errors.FnError:
        """The error that a status of 400 or more stands for: the leaf with the same words, if any."""
        message, detail = self.message, self.headers.get("Error-Detail", "")
        leaf = _LEAVES.get((self.status, message))
        if leaf is not None:
            exc = leaf()
        elif self.status >= 500 or self.status not in _BY_STATUS:
            exc = errors.APINodeUnavailable(detail=f"status {self.status} {message}".strip())
        else:
            exc = _BY_STATUS[self.status](message)
        if detail:
            exc.detail = detail
        if isinstance(exc, errors.TooMany) and (after := self.headers.get("Retry-After", "")).isdigit():
            exc.retry_after = float(after)
        return exc

    def decode(self, type_: type[T]) -> T:
        """The body as a struct; raises APINodeUnavailable when it is no such thing (a proxy's page)."""
        try:
            return wire.decode(self.body, type_)
        except errors.InvalidJSON as exc:
            raise errors.APINodeUnavailable(detail=f"unreadable answer: {exc.detail}") from None


class _Words(msgspec.Struct):
    message: str = ""


class _Said(_Words):
    error: _Words = msgspec.field(default_factory=_Words)


def _leaves(tree: type[errors.FnError] = errors.FnError) -> Iterator[type[errors.FnError]]:
    for leaf in tree.__subclasses__():
        if "text" in vars(leaf):
            yield leaf
        yield from _leaves(leaf)


_LEAVES = {(int(leaf.status), leaf.text): leaf for leaf in _leaves()}
_BY_STATUS: dict[int, type[errors.FnError]] = {
    400: errors.Invalid,
    401: errors.Unauthorized,
    403: errors.Unauthorized,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    429: errors.TooMany,
}


class UnknownThere(errors.APINodeUnavailable):
    """The node does not know one of our endpoints."""


def checked(answer: Answer, *, ours: bool = False) -> Answer:
    """*answer* when it is a success; raises what it stands for otherwise."""
    if answer.status < 300:
        return answer
    if ours and answer.unknown_path:
        raise UnknownThere(detail=answer.message)
    if answer.unknown_path or answer.status < 400:
        said = answer.message or f"status {answer.status}"
        raise errors.APINodeUnavailable(detail=f"is FN_RUNNER_API_URL that of an API node? ({said})")
    raise answer.error()
