"""The function of the recordings in Python: what tests/wire/functions/goldenfn does for its orders.

It knows the formats from the other side, by other means: the json module and email's header parser.
"""

from __future__ import annotations

import base64
import http
import io
import json
from email.parser import BytesParser
from typing import Any


class GoldenFunction:
    """One container: takes what comes on stdin, gives what goes to stdout (``stderr`` aside)."""

    def __init__(self, format_: str) -> None:
        self.answer = getattr(self, f"_{format_.replace('-', '_')}")
        self.count = 0
        self.stderr = b""

    def _work(self, body: bytes, request: object) -> dict[str, Any]:
        self.count += 1
        try:
            orders = json.loads(body)["golden"]
        except (ValueError, TypeError, KeyError):
            return {"out": body}
        self.stderr = orders.get("stderr", "").encode() * orders.get("stderr_repeat", 1)
        out = orders.get("body", "").encode()
        if orders.get("dump") or orders.get("dump_request"):
            out = compact({"request": request})
        elif orders.get("count"):
            out = b'{"count":%d}' % self.count
        elif "json_body" in orders:
            out = compact(orders["json_body"])
        elif "body_b64" in orders:
            out = base64.b64decode(orders["body_b64"])
        return {**orders, "out": out * orders.get("body_repeat", 1)}

    def _default(self, stdin: bytes) -> bytes:
        done = self._work(stdin, {"stdin": stdin.decode("utf-8", "replace")})
        return done.get("raw_stdout", "").encode() or done["out"]

    def _http(self, stdin: bytes) -> bytes:
        head, _, rest = stdin.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        length = int(BytesParser().parse(io.BytesIO(head.partition(b"\r\n")[2])).get("Content-Length", "0"))
        assert length == len(rest)
        done = self._work(
            rest, {"line": line, "headers": sorted(lines), "body": rest.decode("utf-8", "replace")}
        )
        if "raw_stdout" in done:
            return done["raw_stdout"].encode()
        status = done.get("status", 200)
        reason = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
        answer = [f"HTTP/1.1 {status} {reason}"]
        if done.get("content_type"):
            answer.append(f"Content-Type: {done['content_type']}")
        for name, values in sorted(done.get("headers", {}).items()):
            answer += [f"{name}: {value}" for value in values]
        answer += [f"Content-Length: {len(done['out'])}", "", ""]
        return "\r\n".join(answer).encode() + done["out"]

    def _json(self, stdin: bytes) -> bytes:
        sent = json.loads(stdin)
        done = self._work(sent["body"].encode(), sent)
        if "raw_stdout" in done:
            return done["raw_stdout"].encode()
        out: dict[str, Any] = {"body": done["out"].decode("utf-8", "replace")}
        if done.get("content_type"):
            out["content_type"] = done["content_type"]
        if protocol := protocol_of(done):
            out["protocol"] = protocol
        return compact(out) + b"\n"

    def _cloudevent(self, stdin: bytes) -> bytes:
        sent = json.loads(stdin)
        data = sent.get("data")
        body = data.encode() if isinstance(data, str) else compact(data) if "data" in sent else b""
        done = self._work(body, sent)
        content_type = done.get("content_type", "application/json")
        out: dict[str, Any] = {
            "cloudEventsVersion": "0.1",
            "eventID": "golden-event",
            "source": "golden",
            "eventType": "reply",
            "eventTime": "2018-06-01T10:00:00Z",
            "contentType": content_type,
        }
        try:
            out["data"] = json.loads(done["out"]) if content_type == "application/json" else None
        except ValueError:
            out["data"] = None
        if out["data"] is None:
            out["data"] = done["out"].decode()
        if protocol := protocol_of(done):
            out["extensions"] = {"protocol": protocol}
        return compact(out) + b"\n"


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def protocol_of(done: dict[str, Any]) -> dict[str, Any]:
    pairs = {"status_code": done.get("status"), "headers": done.get("headers")}
    return {name: value for name, value in pairs.items() if value}
