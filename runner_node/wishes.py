"""What a client may ask of a queued call with headers of our own: when, how urgent, once, and who is told.

They are the platform's, not the function's: no function sees them (a key or an address may be a secret), and
``Fn-Attempt``, which functions do see, is never a client's.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from multidict import CIMultiDictProxy

from runner_node.protocols.http_stream import Header
from shared_models.call import Call
from shared_models.errors import Invalid

DELAY = "Fn-Delay"
PRIORITY = "Fn-Priority"
IDEMPOTENCY_KEY = "Fn-Idempotency-Key"
CALLBACK_URL = "Fn-Callback-Url"
ATTEMPT = "Fn-Attempt"

LONGEST_DELAY = 7 * 86400
"""Seconds."""
LONGEST_KEY = 255
LONGEST_URL = 2048
_OWN = frozenset(name.lower() for name in (DELAY, PRIORITY, IDEMPOTENCY_KEY, CALLBACK_URL, ATTEMPT))
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_URL_CHARACTERS = re.compile(r"[!-~]+")


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """Of one queued call; *delay* in whole seconds."""

    delay: int = 0
    priority: int = 0
    idempotency_key: str = ""
    callback_url: str = ""

    def of(self, call: Call) -> Call:
        """*call* as its client wants it."""
        if self == NO_WISHES:
            return call
        key = self.idempotency_key
        if key and not call.fn_id:
            # Keys are told apart by function; a route has none, so it is in the key.
            key = hashlib.sha256(f"{call.app_id}\0{call.path}\0{key}".encode()).hexdigest()
        return msgspec.structs.replace(
            call, delay=self.delay, priority=self.priority, idempotency_key=key,
            callback_url=self.callback_url,
        )  # fmt: skip


NO_WISHES = Wishes()


def wishes_of(headers: CIMultiDictProxy[str]) -> Wishes:
    """What *headers* of a request ask for; raises Invalid that names the header and its rule."""
    given: dict[str, Any] = {}
    for name, field, read in _READERS:
        values = headers.getall(name, ())
        if not values:
            continue
        if len(values) > 1:
            raise Invalid(f"{name}: must be given once")
        given[field] = read(values[0].strip())
    return Wishes(**given) if given else NO_WISHES


def foreign(headers: Iterable[Header]) -> list[Header]:
    """*headers* without those that are ours alone, in any spelling that a function may take for the same."""
    return [header for header in headers if not _ours(header[0])]


@functools.lru_cache(maxsize=4096)
def _ours(name: str) -> bool:
    return name.lower().replace("_", "-") in _OWN


def with_attempt(headers: Iterable[Header], attempt: int) -> list[Header]:
    """*headers* of a queued call as its function is to see them in its *attempt* (1, 2, ...)."""
    return [*foreign(headers), (ATTEMPT, str(attempt))]


def _delay(text: str) -> int:
    if not _NUMBER.fullmatch(text) or float(text) > LONGEST_DELAY:
        raise Invalid(f"{DELAY}: must be a number of seconds from 0 to {LONGEST_DELAY}")
    return math.ceil(float(text))


def _priority(text: str) -> int:
    if text not in ("0", "1", "2"):
        raise Invalid(f"{PRIORITY}: must be 0, 1 or 2")
    return int(text)


def _key(text: str) -> str:
    if not 1 <= len(text) <= LONGEST_KEY or not text.isprintable():
        raise Invalid(f"{IDEMPOTENCY_KEY}: must have 1 to {LONGEST_KEY} printable characters")
    return text


def _url(text: str) -> str:
    rule = f"{CALLBACK_URL}: must be an http or https URL of at most {LONGEST_URL} characters"
    if len(text) > LONGEST_URL or not _URL_CHARACTERS.fullmatch(text):
        raise Invalid(rule)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port, or an IPv6 address, that is none
        usable = False
    if not usable:
        raise Invalid(rule)
    if "@" in parts.netloc:
        raise Invalid(f"{CALLBACK_URL}: must have no user and no password")
    return text


_READERS = (
    (DELAY, "delay", _delay),
    (PRIORITY, "priority", _priority),
    (IDEMPOTENCY_KEY, "idempotency_key", _key),
    (CALLBACK_URL, "callback_url", _url),
)
