"""Deploys and calls the example function through the public API, as any client would."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

NAME = "hello"
IMAGE = "hello"
"""For the process driver an image is the name of a folder: examples/hello."""
TIMEOUT = 10.0
FIRST_CALL_TIMEOUT = 180.0
"""Seconds for the first call, which installs what the function requires."""


class Unreachable(Exception):
    """A node did not answer, or refused; the text has its own words."""


def deploy_hello(api: str) -> str:
    """The id of the function *hello* at the API node *api* (a URL), with its app and its trigger.

    What is there already stays as it is. Raises Unreachable.
    """
    app = _made(f"{api}/v2/apps", {"name": NAME}, {"name": NAME})
    fn = _made(
        f"{api}/v2/fns",
        {"app_id": app["id"], "name": NAME},
        {"app_id": app["id"], "name": NAME, "image": IMAGE},
    )
    _made(
        f"{api}/v2/triggers",
        {"app_id": app["id"], "fn_id": fn["id"], "name": NAME},
        {"app_id": app["id"], "fn_id": fn["id"], "name": NAME, "type": "http", "source": f"/{NAME}"},
    )
    return str(fn["id"])


def invoke(runner: str, fn_id: str) -> str:
    """What the function answers at the runner node *runner* (a URL); raises Unreachable."""
    return _fetch("POST", f"{runner}/invoke/{fn_id}", b"", FIRST_CALL_TIMEOUT).strip()


def not_ready(node: str) -> str:
    """Why the node at the URL *node* is not ready; empty when it is."""
    try:
        _fetch("GET", f"{node}/readyz", None, 2.0)
    except Unreachable as exc:
        return str(exc)
    return ""


def _made(url: str, query: dict[str, str], body: dict[str, str]) -> dict[str, Any]:
    """The resource that *query* finds, made from *body* when there is none."""
    found = json.loads(_fetch("GET", f"{url}?{urllib.parse.urlencode(query)}", None, TIMEOUT))
    for item in found.get("items") or []:
        return dict(item)
    return dict(json.loads(_fetch("POST", url, json.dumps(body).encode(), TIMEOUT)))


def _fetch(method: str, url: str, body: bytes | None, timeout: float) -> str:
    request = urllib.request.Request(url, data=body, method=method)
    request.add_header("Content-Type", "application/json")
    if token := os.environ.get("FN_TOKEN", ""):  # as the fn command has it
        request.add_header("Authorization", f"Bearer {token}")
    try:
        # An opener of its own: a proxy from the environment has no business between these nodes.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=timeout
        ) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as exc:
        with exc:
            text = exc.read().decode("utf-8", "replace").strip()
        hint = "; set FN_TOKEN to a token that may do this" if exc.code in (401, 403) else ""
        raise Unreachable(f"{exc.code} {text}{hint}") from None
    except (OSError, http.client.HTTPException) as exc:
        raise Unreachable(f"{url} does not answer: {getattr(exc, 'reason', exc)}") from None
