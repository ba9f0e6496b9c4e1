"""What ``fn-node copy`` asks servers of Fn and API nodes, and how two resources are compared."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from shared_models.fn import INVOKE_ENDPOINT
from shared_models.secrets import HIDDEN
from shared_models.trigger import HTTP_ENDPOINT

TIMEOUT = 30.0
"""Seconds for one answer."""
PER_PAGE = 100
APP_FIELDS = ("config", "annotations", "syslog_url", "shape")
FN_FIELDS = ("image", "memory", "timeout", "idle_timeout", "config", "annotations")
TRIGGER_FIELDS = ("type", "source", "annotations")
ROUTE_FIELDS = (
    *("image", "memory", "cpus", "headers", "type", "format"),
    *("timeout", "idle_timeout", "tmpfs_size", "config", "annotations"),
)
_MADE_BY_SERVERS = {INVOKE_ENDPOINT, HTTP_ENDPOINT}

Resource = dict[str, Any]


class Away(Exception):
    """A server does not answer, or not as one of Fn does; the text says which and why."""


class Refused(Exception):
    """A server's own words for what it does not do, and the *status* of its answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token is for one server, not for where that one points to."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Server:
    """The one at *url*, asked with *token* if there is one."""

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url.rstrip("/")
        self._token = token
        # A proxy from the environment has no business between these servers.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)

    def ask(self, method: str, path: str, body: Resource | None = None) -> Resource:
        """The object that is the answer; raises Away, Refused."""
        data = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        request = urllib.request.Request(self._url + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            status, text = self._answer(request)
        except (OSError, http.client.HTTPException) as exc:
            raise Away(f"{self._url} does not answer: {getattr(exc, 'reason', exc)}") from None
        if status >= 300:
            raise Refused(status, _words(text))
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Away(f"{self._url}{path} answers no JSON object: is it a server of Fn?")
        return found

    def _answer(self, request: urllib.request.Request) -> tuple[int, bytes]:
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read()

    def listed(self, path: str, items: str, **query: str) -> Iterator[Resource]:
        """All of a listing, whose pages have them under *items*; raises Away, Refused."""
        asked = {**query, "per_page": str(PER_PAGE)}
        seen = {""}
        while True:
            page = self.ask("GET", f"{path}?{urllib.parse.urlencode(asked)}")
            found = page.get(items) or []
            if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
                raise Away(f"{self._url}{path} answers no list of {items}: is it a server of Fn?")
            yield from found
            cursor = page.get("next_cursor") or ""
            if cursor in seen:
                return
            seen.add(cursor)
            asked["cursor"] = cursor

    def listed_if_there(self, path: str, items: str) -> list[Resource] | None:
        """All of a listing; None from a server without this API. Raises Away, Refused."""
        try:
            return list(self.listed(path, items))
        except Refused as exc:
            if exc.status in (404, 410):
                return None
            raise


def wanted(source: Resource, fields: tuple[str, ...]) -> tuple[Resource, list[str]]:
    """What to give to the new server of *source*, and the keys of config that it hides; raises Away."""
    given = {field: source[field] for field in fields if source.get(field)}
    for field in ("config", "annotations"):
        if not isinstance(given.get(field, {}), dict):
            raise Away(f"something in a listing has {field} that is no object: is it of a server of Fn?")
    config = given.get("config", {})
    hidden = sorted(key for key, value in config.items() if value == HIDDEN)
    if config:
        given["config"] = {key: value for key, value in config.items() if value != HIDDEN}
    if notes := given.get("annotations"):
        given["annotations"] = {key: notes[key] for key in notes if key not in _MADE_BY_SERVERS}
    return given, hidden


def differences(given: Resource, found: Mapping[str, Any]) -> list[str]:
    """Names of what *found* lacks or has another value for, such as ``memory`` and ``config KEY``.

    What only *found* has is no difference, and a value that it hides cannot be compared.
    """
    names = []
    for field, value in given.items():
        there = found.get(field)
        if not isinstance(value, dict):
            names += [field] if value != there else []
            continue
        for key, one in value.items():
            other = (there or {}).get(key, "")
            if other != one and not (field == "config" and other == HIDDEN):
                names.append(f"{field} {key}")
    return names


def _words(body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
        return str(found["error"]["message"] if "error" in found else found["message"])
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:200]
