"""What an app, a function or a route says of its callers: whether they need a token, and how many may come.

fn.hybrid/invoke/auth: token            of an app, a function or a route: it is private
fn.hybrid/rate-limit/per-second: 50     of an app: calls a second, on each runner node
fn.hybrid/rate-limit/burst: 100         of an app: calls at once
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from shared_models import annotations as annotation_maps

INVOKE_AUTH = "fn.hybrid/invoke/auth"
TOKEN = "token"
RATE = "fn.hybrid/rate-limit/per-second"
BURST = "fn.hybrid/rate-limit/burst"
OF_APPS = frozenset({RATE, BURST})
"""Annotations that only an app can have."""
MOST = 10**6
_LEAST = 0.001


class Rate(msgspec.Struct, frozen=True):
    """Calls a second, and how many at once."""

    per_second: float
    burst: float


def private(*maps: Mapping[str, msgspec.Raw]) -> bool:
    """Whether one of these annotations (of an app, and of what is in it) says that callers need a token."""
    return any(INVOKE_AUTH in one for one in maps)


def rate(annotations: Mapping[str, msgspec.Raw], default: float) -> Rate | None:
    """The limit of an app; None for none. *default* in calls a second, 0 for none."""
    per_second = annotation_maps.number(annotations, RATE) or default
    if not per_second:
        return None
    return Rate(per_second, annotation_maps.number(annotations, BURST) or max(1.0, math.ceil(per_second)))


def says_token(annotations: Mapping[str, msgspec.Raw], key: str) -> bool:
    """Whether the value under *key* is ``token``."""
    return annotation_maps.string(annotations, key) == TOKEN


def is_rate(annotations: Mapping[str, msgspec.Raw], key: str) -> bool:
    """Whether the value under *key* is a number of calls a second."""
    value = annotation_maps.number(annotations, key)
    return value is not None and _LEAST <= value <= MOST


def is_burst(annotations: Mapping[str, msgspec.Raw], key: str) -> bool:
    """Whether the value under *key* is a whole number of calls."""
    value = annotation_maps.number(annotations, key)
    return value is not None and value == int(value) and 1 <= value <= MOST


RULES = {
    INVOKE_AUTH: (says_token, f'must be "{TOKEN}"; take it away to let everybody call'),
    RATE: (is_rate, f"must be a number of calls a second from {_LEAST} to {MOST}"),
    BURST: (is_burst, f"must be a whole number of calls from 1 to {MOST}"),
}
"""What a value under each key must be, and the words for it."""
