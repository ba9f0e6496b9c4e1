"""What a callback says: the end of one call as JSON."""

from __future__ import annotations

import msgspec

from shared_models.call import Finished, bytes_on_wire
from shared_models.call_interfaces import Callback

MAX_BODY = 1 << 20
"""Bytes of an answer at most, whatever a runner sends: it waits in a database, which may not take more."""


def callback_of(finished: Finished) -> Callback:
    """The callback of a call that has ended for good; its call has a ``callback_url``."""
    call = finished.call
    truncated = finished.truncated or len(finished.body) > MAX_BODY
    answer = whole_characters(finished.body[:MAX_BODY]) if truncated else finished.body
    said = {
        "call_id": call.id,
        "app_id": call.app_id,
        "fn_id": call.fn_id,
        "status": call.status,
        "error": call.error,
        "reason": call.reason,
        "attempt": call.attempt,
        "created_at": call.created_at,
        "started_at": call.started_at,
        "completed_at": call.completed_at,
        "content_type": finished.content_type,
        **bytes_on_wire("body", answer),
        "truncated": truncated,
    }
    return Callback(
        call_id=call.id,
        attempt=call.attempt,
        fn_id=call.fn_id,
        app_id=call.app_id,
        status=call.status,
        url=call.callback_url,
        body=msgspec.json.encode(said),
    )


def whole_characters(text: bytes) -> bytes:
    """*text* without the beginning of a UTF-8 character that its cut has left; other bytes as they are."""
    try:
        text.decode()
    except UnicodeDecodeError as exc:
        if exc.reason == "unexpected end of data":
            return text[: exc.start]
    return text
