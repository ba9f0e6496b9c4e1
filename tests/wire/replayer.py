"""Replays recorded exchanges with the original server on ours, and names every difference.

A scenario is a list of requests with the answers that were recorded. A step that is marked as a quirk
of the original is compared with its sane variant (``or``) where one is given, else sent only. A JSON
error that was labelled as text may be labelled as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.wire.fn_node import FnNode
from tests.wire.matching import Answer, Bindings, compare, match_json


def send(
    base_url: str,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    body: bytes | None = None,
    *,
    chunked: bool = False,
) -> Answer:
    """One request, with exactly these headers, Host and framing."""
    address = urllib.parse.urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    connection._validate_path = lambda url: None  # type: ignore[attr-defined]
    given = {name.lower() for name, _ in headers}
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if "host" not in given:
            connection.putheader("Host", address.netloc)
        for name, value in headers:
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None and "content-length" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None, encode_chunked=chunked)
        response = connection.getresponse()
        try:
            data = response.read()
        except http.client.IncompleteRead as cut:
            data = cut.partial
        return Answer(response.status, response.getheaders(), data)
    finally:
        connection.close()


class Run:
    """One run of a scenario against the servers at *urls*: one base URL, or one for each target.

    *node* is what a runner has for its API node, where that is played from the recording too. *objects*
    tells what an object store has, where the recording looks into it.
    """

    def __init__(
        self,
        scenario: dict[str, Any],
        urls: str | Mapping[str, str],
        bindings: Bindings | None = None,
        node: FnNode | None = None,
        objects: Callable[[], Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        self._scenario = scenario
        self._urls = {"main": urls} if isinstance(urls, str) else dict(urls)
        self._node = node
        self._objects = objects
        self._bindings = bindings or Bindings(dict(scenario.get("vars") or {}))
        if len(self._urls) == 1:
            (only,) = self._urls.values()
            self._bindings.values["host"] = urllib.parse.urlsplit(only).netloc
        self._background: dict[str, asyncio.Task[Answer]] = {}
        self.slowest = 0.0
        """Seconds of the longest step so far: on a busy machine longer than a function may be idle."""

    async def differences(self) -> dict[int, list[str]]:
        """The differences by step; those in the order of times have the number after the last."""
        if self._scenario.get("clean"):
            await asyncio.to_thread(self._remove_apps)
        steps = self._scenario["steps"]
        found = {}
        for number, step in enumerate(steps):
            await asyncio.sleep(step.get("sleep_ms", 0) / 1000)
            begun = time.monotonic()
            try:
                problems = await self._step(step)
            except KeyError as unbound:
                problems = [f"{unbound} was never bound: an earlier step failed"]
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if problems:
                found[number] = problems
        if wrong := self._wrong_order():
            found[len(steps)] = wrong
        return found

    async def _step(self, step: dict[str, Any]) -> list[str]:
        if "join" in step:
            return self._compared(step, await self._background.pop(step["join"]))
        if "upstream" in step and self._node:
            return await self._node.differences(step)
        if "store" in step and self._objects:
            return await self._look(step)
        if "request" not in step:
            return []
        asked = self._request(step["request"])
        asked["base_url"] = self._urls[step.get("target", "main")]
        if name := step.get("background"):
            self._background[name] = asyncio.create_task(self._send(asked))
            return []
        until = step.get("until")
        if not until:
            return self._compared(step, await self._send(asked))
        deadline = asyncio.get_running_loop().time() + until.get("timeout_s", 0)
        while True:
            before = dict(self._bindings.values)
            problems = self._compared(step, await self._send(asked))
            if not problems or asyncio.get_running_loop().time() > deadline:
                return problems
            self._bindings.values = before
            await asyncio.sleep(until.get("every_ms", 200) / 1000)

    async def _look(self, step: dict[str, Any]) -> list[str]:
        assert self._objects is not None
        deadline = asyncio.get_running_loop().time() + step.get("within_s", 10)
        while True:
            before = dict(self._bindings.values)
            found = await self._objects()
            problems = match_json(step["store"], found, self._bindings)
            if not problems or asyncio.get_running_loop().time() > deadline:
                return problems
            self._bindings.values = before
            await asyncio.sleep(0.1)

    def _compared(self, step: dict[str, Any], answer: Answer) -> list[str]:
        before = dict(self._bindings.values)
        problems = compare(step["response"], answer, self._bindings)
        if problems and "or" in step:
            self._bindings.values = before
            problems = compare(step["or"], answer, self._bindings)
        return [] if step.get("quirk") and "or" not in step else problems

    def _request(self, recorded: dict[str, Any]) -> dict[str, Any]:
        fill = self._bindings.fill
        body: bytes | None = None
        if "json" in recorded:
            filled = fill(recorded["json"])
            body = json.dumps(filled, ensure_ascii=False, separators=(",", ":")).encode()
        elif "text" in recorded:
            body = fill(recorded["text"]).encode()
        elif "b64" in recorded:
            body = base64.b64decode(recorded["b64"])
        elif "fill" in recorded:
            body = (recorded["fill"]["with"] * recorded["fill"]["times"]).encode()
        headers = [
            (name, fill(one))
            for name, value in (recorded.get("headers") or {}).items()
            for one in (value if isinstance(value, list) else [value])
        ]
        return {
            "method": recorded["method"],
            "path": fill(recorded["path"]),
            "headers": headers,
            "body": body,
            "chunked": bool(recorded.get("chunked")),
        }

    async def _send(self, asked: dict[str, Any]) -> Answer:
        return await asyncio.to_thread(send, **asked)

    def _remove_apps(self) -> None:
        base_url = self._urls[self._scenario.get("clean_target", "main")]
        while True:
            listed = json.loads(send(base_url, "GET", "/v2/apps?per_page=100", []).body)["items"]
            if not listed:
                return
            for app in listed:
                send(base_url, "DELETE", f"/v2/apps/{app['id']}", [])

    def _wrong_order(self) -> list[str]:
        values, wrong = self._bindings.values, []
        for one, relation, other in self._scenario.get("order") or []:
            if one in values and other in values:
                holds = values[one] < values[other] or (relation == "<=" and values[one] == values[other])
                if not holds:
                    wrong.append(f"{one} {relation} {other} does not hold")
        return wrong
