"""Results of queued calls that are kept: sent as the function gave them, or why there is none."""

from __future__ import annotations

from aiohttp import web

from api_node.pieces import in_pieces
from shared_models.async_policy import KEEP_RESULT
from shared_models.call import Call, CallType, Status
from shared_models.errors import CallResultNotFound
from shared_models.interfaces import KeptResult

CALL_ID = "Fn-Call-Id"
TRUNCATED = "Fn-Result-Truncated"
_BINARY = "application/octet-stream"


async def sent(request: web.Request, call_id: str, found: KeptResult) -> web.StreamResponse:
    """The answer that is a result as it is."""
    headers = {
        "Content-Type": found.content_type or _BINARY,
        CALL_ID: call_id,
        # It is what a function, or whoever called it, has written: a page in it must not run where the API is
        # asked, with the rights that a browser has there. So it is saved, and taken for what it is named.
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }
    if found.truncated:
        headers[TRUNCATED] = "true"
    return await in_pieces(request, found.body, headers)


def not_found(call: Call) -> CallResultNotFound:
    """Why nothing is kept of *call*, which has ended."""
    if call.type == CallType.SYNC:
        why = "the call is sync, whoever called was answered"
    elif call.status != Status.SUCCESS:
        why = f"the call ended as {call.status}, without an answer to keep"
    else:
        why = (
            f"it was not to be kept (annotation {KEEP_RESULT} of the function, route or app: true), or was "
            "removed since"
        )
    return CallResultNotFound(f"Call result not found: {why}")
