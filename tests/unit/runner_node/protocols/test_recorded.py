"""The recorded invocations of Fn 0.3.484, with the recordings' function behind each format and no node.

What the node adds (the route's headers, the call's id, a content type nobody gave) is added here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner_node import content_type
from runner_node.protocols.cloudevent import is_event
from runner_node.protocols.contract import StdioCall
from runner_node.protocols.formats import format_of
from runner_node.protocols.http_stream import Response
from shared_models import errors
from tests.unit.runner_node.protocols.golden import GoldenFunction, compact
from tests.wire.matching import Answer, Bindings, compare, match_json

SCENARIOS = Path(__file__).parents[3] / "wire" / "scenarios"
NAMES = [
    "inv-default-request", "inv-default-response", "inv-json-request", "inv-json-bodies", "inv-json-response",
    "inv-http-request", "inv-http-response", "inv-cloudevent-bodies", "inv-cloudevent-in",
    "inv-cloudevent-request", "inv-errors-json", "inv-errors-http", "inv-async", "inv-async-request",
    "inv-limits",
]  # fmt: skip
ID = "01CGXHPTRGFW00008ZJ%07d"


class Node:
    """As much of a node as a recording needs: routes, one container for each, the last call's log."""

    def __init__(self, max_body: int) -> None:
        self.routes: dict[str, dict[str, Any]] = {}
        self.containers: dict[tuple[str, str], GoldenFunction] = {}
        self.max_body = max_body
        self.calls = 0
        self.log = b""

    def invoke(self, request: dict[str, Any]) -> Answer:
        route = self.routes[request["path"].partition("?")[0].rstrip("/")]
        self.calls += 1
        call = call_of(request, ID % self.calls)
        headers = [(name, value) for name, values in route.get("headers", {}).items() for value in values]
        headers += [("Fn_call_id", call.id), ("Xxx-Fxlb-Wait", "1ms")]
        try:
            response = self.run(route, call)
        except errors.FnError as exc:
            body = compact({"error": {"message": exc.message}})
            return Answer(exc.code, [*headers, ("Content-Type", "application/json; charset=utf-8")], body)
        if response.content_type_wins:
            headers = [(name, value) for name, value in headers if name != "Content-Type"]
        headers += response.headers
        without_body = response.status in (204, 304)
        if not without_body and not any(name == "Content-Type" for name, _ in headers):
            brace = response.body.startswith(b"{")
            found = "application/json; charset=utf-8" if brace else content_type.detect(response.body)
            headers.append(("Content-Type", found))
        return Answer(response.status, headers, b"" if without_body else response.body)

    def run(self, route: dict[str, Any], call: StdioCall) -> Response:
        format_ = format_of("cloudevent" if is_event(call.content_type) else route["format"])
        stdin, key = format_.encode(call), (route["path"], format_.name)
        container = self.containers.pop(key, None) or GoldenFunction(format_.name)
        parser = format_.parser(call, max_body=self.max_body)
        parser.feed(container.answer(stdin))
        if not format_.hot:
            parser.end_of_stream()
        elif parser.clean:
            self.containers[key] = container
        self.log = container.stderr + parser.log_text()
        return parser.response()


def call_of(request: dict[str, Any], call_id: str) -> StdioCall:
    if "json" in request:
        body = compact(request["json"])
    elif "b64" in request:
        body = base64.b64decode(request["b64"])
    elif "fill" in request:
        body = request["fill"]["with"].encode() * request["fill"]["times"]
    else:
        body = request.get("text", "").encode()
    headers = []
    for name, values in request.get("headers", {}).items():
        headers += [(name, value) for value in (values if isinstance(values, list) else [values])]
    if body and not request.get("chunked"):
        headers.append(("Content-Length", str(len(body))))
    types = [value for name, value in headers if name == "Content-Type"]
    return StdioCall(
        id=call_id,
        deadline="2018-06-05T10:15:00.123Z",
        method=request["method"],
        url=f"http://fn.test:8080{request['path']}",
        headers=headers,
        content_type=types[0] if types else "",
        body=body,
    )


def only_request(template: Any) -> Any:
    """Of all that a function dumped, its request: the rest is about its container."""
    if isinstance(template, dict):
        kept = {"request": template["request"]} if {"request", "mounts"} <= template.keys() else template
        return {name: only_request(value) for name, value in kept.items()}
    return template


def invocations(name: str) -> Iterator[tuple[Node, Bindings, dict[str, Any], dict[str, Any]]]:
    """Each step that a function answers, or that shows its log."""
    (path,) = SCENARIOS.glob(f"2018-*/{name}.json")
    scenario = json.loads(path.read_text())
    node = Node(max_body=2048 if name == "inv-limits" else 0)
    bindings = Bindings(scenario["vars"], {"host": "fn.test:8080"})
    for step in scenario["steps"]:
        request, expected = step["request"], only_request(step["response"])
        path_, status = request["path"], expected["status"]
        if path_.endswith("/routes"):
            route = request["json"]["route"]
            node.routes[f"/r/{path_.split('/')[3]}{route['path']}"] = route
        # What is too large, or too slow, is found out by the node; the slow container is gone.
        if status == 504:
            node.containers.clear()
        invoked = path_.startswith("/r/") and status not in (413, 504)
        if invoked or (path_.endswith("/log") and name.startswith("inv-async")):
            yield node, bindings, request, expected


@pytest.mark.parametrize("name", NAMES)
def test_recorded_calls_come_out_as_recorded(name):
    seen = 0
    for node, bindings, request, expected in invocations(name):
        seen += 1
        if request["path"].endswith("/log"):
            log = node.log.decode()
            assert match_json(expected["json"]["log"]["log"], log, bindings) == [], request
            continue
        answer = node.invoke(request)
        if expected["status"] == 202:
            bindings.match(expected["headers"]["Fn_call_id"], ID % node.calls)
        else:
            assert compare(expected, answer, bindings) == [], request
    assert seen >= 4
