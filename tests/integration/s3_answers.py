"""An S3 server that refuses: it answers each kind of request as a test says, over real HTTP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

EMPTY = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


@dataclass(slots=True)
class Answers:
    """*refused*: status and code by what is asked (``HEAD bucket``, ``GET bucket``, ``PUT object``...).

    *conditional*: it keeps the conditions of a put.
    """

    port: int = 0
    conditional: bool = True
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"s3://access:secret@127.0.0.1:{self.port}/us-east-1/fn-calls"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.split(" ", 2)
        kind = "object" if target.partition("?")[0].strip("/").count("/") else "bucket"
        status, code = self.refused.get(f"{method} {kind}", (200, ""))
        if self.conditional and ("if-none-match" in head.lower() or "if-match" in head.lower()) and not code:
            status, code = 412, "PreconditionFailed"
        body = f"<Error><Code>{code}</Code></Error>" if code else EMPTY
        length = 0 if method == "HEAD" else len(body)
        answer = f"HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nETag: v1\r\nConnection: close\r\n\r\n"
        writer.write((answer + body[:length]).encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def answering(
    tls: ssl.SSLContext | None = None, /, **refused: tuple[int, str]
) -> AsyncIterator[Answers]:
    """``answering(head_bucket=(403, "AccessDenied"))``; what is not named succeeds."""
    named = {f"{key.split('_')[0].upper()} {key.split('_')[1]}": value for key, value in refused.items()}
    answers = Answers(refused=named)
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        answers.port = server.sockets[0].getsockname()[1]
        yield answers
