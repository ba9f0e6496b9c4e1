"""Answers: JSON as Fn writes it, and errors in Fn's words."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from aiohttp import web

from shared_models import errors, wire

JSON = "application/json; charset=utf-8"


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """*body* (builtins and structs) as JSON with the newline that Fn writes."""
    return web.Response(
        body=wire.encode(body),
        status=status,
        headers={"Content-Type": JSON, **headers} if headers else {"Content-Type": JSON},
    )


def tagged_response(request: web.Request, body: object) -> web.Response:
    """*body* as JSON with its ETag, or 304 when the client has it already."""
    text = wire.encode(body)
    tag = f'"{hashlib.blake2b(text, digest_size=16).hexdigest()}"'
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers={"ETag": tag})
    return web.Response(body=text, headers={"Content-Type": JSON, "ETag": tag})


def error_response(exc: BaseException, *, v1: bool, headers: Mapping[str, str] | None = None) -> web.Response:
    """What a client is told of *exc*: of anything but an FnError, that it was an internal error.

    The body has Fn's words only; what else is known (``shown``) goes into ``Error-Detail``.
    """
    known = exc if isinstance(exc, errors.FnError) else errors.FnError()
    extra = dict(headers or {})
    if known.detail:
        extra["Error-Detail"] = one_line(known.shown)
    if isinstance(known, errors.Unavailable | errors.TooMany):
        extra["Retry-After"] = str(max(1, math.ceil(known.retry_after)))
    if isinstance(known, errors.Unauthorized):
        extra["WWW-Authenticate"] = "Bearer"
    body: object = {"message": known.message}
    return json_response({"error": body} if v1 else body, known.code, extra)


def is_v1(path: str) -> bool:
    """Whether errors of *path*, or of what is meant by it, have the shape of the v1 API."""
    first = path.lstrip("/").partition("/")[0]
    return first in ("v1", "V1", "r")


def one_line(text: str, limit: int = 300) -> str:
    """*text* as it may stand in a header: printable ASCII of at most *limit* characters."""
    shown = "".join(char if " " <= char <= "~" else "?" for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
