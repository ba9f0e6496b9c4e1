"""The http-stream contract as a scripted function speaks it: bytes to a request, an answer to bytes."""

from __future__ import annotations

import asyncio

from runner_node.drivers.fake_behaviour import Answer


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """The next one: its first line, its headers with names in lower case, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for field in head[1:]:
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    headers.pop("", None)
    return head[0], headers, body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readline() not in (b"\r\n", b""):
        pass
    return body


def encode(answer: Answer) -> tuple[bytes, bytes]:
    """Head and body."""
    lines = [f"HTTP/1.1 {answer.status} Status"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += [f"Content-Length: {len(answer.body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1"), answer.body
