"""A function's whole answer as the bytes that an ``/invoke`` client gets: head and body in one piece."""

from __future__ import annotations

import functools
import time
from email.utils import formatdate

from aiohttp.http import SERVER_SOFTWARE

from runner_node import content_type
from runner_node.protocols.http_stream import Response

_FDK_VERSION = "fn-fdk-version"


def encode(call_id: str, response: Response) -> bytes:
    """The same head that the server would write; raises ValueError for a header that cannot be written."""
    lines = [f"HTTP/1.1 200 OK\r\nFn-Call-Id: {call_id}\r\n"]
    body, typed, dated, served = response.body, False, False, False
    for name, value in response.headers:
        match name.lower():
            case "content-length":
                continue
            case "content-type":
                typed = True
            case "date":
                dated = True
            case "server":
                served = True
        lines.append(f"{name}: {value}\r\n")
    if body and not typed:
        lines.append(f"Content-Type: {content_type.detect(body)}\r\n")
    lines.append(f"Content-Length: {len(body)}\r\n")
    if not dated:
        lines.append(f"Date: {_date(int(time.time()))}\r\n")
    if not served:
        lines.append(f"Server: {SERVER_SOFTWARE}\r\n")
    head = "".join(lines)
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
        raise ValueError("a header value has more than one line")
    return b"".join((head.encode("utf-8", "surrogateescape"), b"\r\n", body))


def fdk_version(response: Response) -> str:
    """What the function says of its FDK, or ""."""
    for name, value in response.headers:
        if name.lower() == _FDK_VERSION:
            return value
    return ""


@functools.lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
