"""Pages of listings: how many to a page, where one begins, and what leads to the next.

A cursor is base64url without padding of the last item's key. It is given exactly when a page is
full, so it may lead to an empty page (as in Fn).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from shared_models.errors import BadCursor

DEFAULT_PER_PAGE = 30
MAX_PER_PAGE = 100


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


def page(items: Sequence[Any], limit: int, last_key: str) -> dict[str, Any]:
    """The answer to a listing; *last_key* is the key of the last item."""
    body: dict[str, Any] = {}
    if items and len(items) >= limit:
        body["next_cursor"] = base64.urlsafe_b64encode(last_key.encode()).rstrip(b"=").decode()
    body["items"] = items
    return body
