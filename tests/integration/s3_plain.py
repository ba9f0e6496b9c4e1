"""An S3 server that knows little: no conditions of writes, no tags, no removal of many at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from aiohttp import web


@dataclass(slots=True)
class Plain:
    """*objects* by key; *asked*: the verbs of all requests."""

    port: int = 0
    objects: dict[str, bytes] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"s3://access:secret@127.0.0.1:{self.port}/us-east-1/fn-calls"

    async def answer(self, request: web.Request) -> web.Response:
        bucket, _, key = request.match_info["rest"].partition("/")
        assert bucket == "fn-calls"
        self.asked.append(request.method)
        if request.method == "POST":
            return self._error(501, "NotImplemented")
        if not key:
            return self._listed(request) if request.method == "GET" else web.Response()
        if request.method == "PUT":
            self.objects[key] = await request.read()
            self.notes[key] = {
                k: v for k, v in request.headers.items() if k.lower().startswith("x-amz-meta-")
            }
        elif request.method == "DELETE":
            self.objects.pop(key, None)
            return web.Response(status=204)
        elif key not in self.objects:
            return self._error(404, "NoSuchKey")
        else:
            return self._object(key, request.http_range)
        return web.Response()

    def _object(self, key: str, span: slice) -> web.Response:
        body, notes = self.objects[key], self.notes[key]
        if span.start is None:
            return web.Response(body=body, headers=notes)
        if span.start >= len(body):
            return self._error(416, "InvalidRange")
        part = body[span]
        place = f"bytes {span.start}-{span.start + len(part) - 1}/{len(body)}"
        return web.Response(status=206, body=part, headers={**notes, "Content-Range": place})

    def _listed(self, request: web.Request) -> web.Response:
        prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
        limit, delimiter = int(request.query.get("max-keys", "1000")), request.query.get("delimiter", "")
        found: dict[str, str] = {}
        for key in sorted(key for key in self.objects if key.startswith(prefix)):
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            name = f"{prefix}{head}{cut}" if cut else key
            if name > marker:
                found[name] = "CommonPrefixes" if cut else "Contents"
        body = "".join(
            f"<{kind}><{part}>{escape(name)}</{part}></{kind}>"
            for name, kind in list(found.items())[:limit]
            for part in ("Prefix" if kind == "CommonPrefixes" else "Key",)
        )
        cut_off = "true" if len(found) > limit else "false"
        text = f"<ListBucketResult><IsTruncated>{cut_off}</IsTruncated>{body}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")

    def _error(self, status: int, code: str) -> web.Response:
        text = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
        return web.Response(status=status, text=text, content_type="application/xml")


@asynccontextmanager
async def plain_server() -> AsyncIterator[Plain]:
    """One that listens on a port of this machine."""
    plain = Plain()
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{rest:.*}", plain.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        plain.port = runner.addresses[0][1]
        yield plain
    finally:
        await runner.cleanup()
