"""The kinds of errors: what status they are, and what they know besides their words."""

from __future__ import annotations

import http
import re
from typing import ClassVar

_OF_MACHINES = re.compile(
    r"(?:unix://|(?<![\w.:/-]))/(?:(?:[\w.+@-]+/)*[\w.+@-]+\.sock\b"
    r"|(?:var|run|tmp|home|root|srv|mnt|media|data|proc|sys)/[^\s\"'`,;:)\]]+)"
)
"""Sockets, and what is below folders in which machines keep what is theirs; functions have code elsewhere."""


class FnError(Exception):
    """Base of all; *message* is what the client reads, *detail* goes to the log, ``shown`` to a header."""

    status: ClassVar[int] = 500
    text: ClassVar[str] = "internal server error"

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        self.message = message or self.text
        self.detail = detail
        super().__init__(self.message)

    @property
    def code(self) -> int:
        """The status to answer with."""
        return self.status

    @property
    def explained(self) -> str:
        """Message and detail on one line, for logs."""
        return f"{self.message}: {self.detail}" if self.detail else self.message

    @property
    def shown(self) -> str:
        """The detail as clients may read it: without paths of this machine."""
        return _OF_MACHINES.sub("...", self.detail)

    @property
    def recorded(self) -> str:
        """As ``explained``, for records, which clients read."""
        return f"{self.message}: {self.shown}" if self.detail else self.message


class Invalid(FnError):
    status = http.HTTPStatus.BAD_REQUEST
    text = "Bad request"


class Unauthorized(FnError):
    status = http.HTTPStatus.UNAUTHORIZED
    text = "Unauthorized"


class Forbidden(FnError):
    status = http.HTTPStatus.FORBIDDEN
    text = "Forbidden"


class NotFound(FnError):
    status = http.HTTPStatus.NOT_FOUND
    text = "Not found"


class Conflict(FnError):
    status = http.HTTPStatus.CONFLICT
    text = "Conflict"


class TooLarge(FnError):
    status = http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    text = "Request body too large"


class TooMany(FnError):
    """*retry_after*: seconds after which a repetition has a chance."""

    status = http.HTTPStatus.TOO_MANY_REQUESTS
    text = "Too many requests"

    def __init__(self, message: str = "", *, detail: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after


class BadFunction(FnError):
    status = http.HTTPStatus.BAD_GATEWAY
    text = "error receiving function response"


class TimedOut(FnError):
    status = http.HTTPStatus.GATEWAY_TIMEOUT
    text = "Timed out"


class Unavailable(FnError):
    """*retry_after*: seconds after which a repetition has a chance."""

    status = http.HTTPStatus.SERVICE_UNAVAILABLE
    text = "Service unavailable"

    def __init__(self, message: str = "", *, detail: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after


class InvalidJSON(Invalid):
    text = "Invalid JSON"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail=detail)


class BadCursor(Invalid):
    text = "Invalid cursor, use the next_cursor of the previous page"
