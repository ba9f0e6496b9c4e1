"""Pages of listings: how many to a page, where one begins, and what leads to the next.

A cursor is base64url without padding of the last item's key. It is given exactly when a page is
full, so it may lead to an empty page (as in Fn). The v1 API takes any cursor, and reads it as far as
it can be read.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from shared_models.errors import BadCursor

DEFAULT_PER_PAGE = 30
MAX_PER_PAGE = 100
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def per_page(request: web.Request) -> int:
    """How many items are asked for: at most 100, and 30 for what is no positive number."""
    try:
        asked = int(request.query.get("per_page", ""))
    except ValueError:
        return DEFAULT_PER_PAGE
    return min(asked, MAX_PER_PAGE) if asked > 0 else DEFAULT_PER_PAGE


def cursor(request: web.Request) -> str:
    """The key after which the page begins, "" for the first page; raises BadCursor."""
    text = request.query.get("cursor", "")
    try:
        padded = text + "=" * (-len(text) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise BadCursor from None


def lenient_cursor(request: web.Request) -> str:
    """The key after which a page of the v1 API begins: what is legible up to the first bad character."""
    text = request.query.get("cursor", "")
    good = _BASE64URL.match(text)
    legible = good[0] if good else ""
    # Four characters are three bytes; a cursor that ends early may end with fewer, a broken one may not.
    whole = legible if legible == text and len(text) % 4 != 1 else legible[: len(legible) // 4 * 4]
    key = base64.urlsafe_b64decode(whole + "=" * (-len(whole) % 4)).decode("utf-8", "replace")
    return key.partition("\0")[0]


def v1_cursor(items: Sequence[Any], limit: int, last_key: str) -> str:
    """The cursor that leads on from a page whose last item has *last_key*; "" when the page is not full."""
    return encoded(last_key) if items and len(items) >= limit else ""


def encoded(key: str) -> str:
    """The cursor of a key."""
    return base64.urlsafe_b64encode(key.encode()).rstrip(b"=").decode()


def page(items: Sequence[Any], limit: int, last_key: str) -> dict[str, Any]:
    """The answer to a listing; *last_key* is the key of the last item."""
    body: dict[str, Any] = {}
    if items and len(items) >= limit:
        body["next_cursor"] = encoded(last_key)
    body["items"] = items
    return body
