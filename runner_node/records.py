"""What is handed in of a call that has ended."""

from __future__ import annotations

import msgspec

from runner_node import content_type
from runner_node.protocols.http_stream import Response
from runner_node.reasons import End
from shared_models import times
from shared_models.async_policy import wants_answer
from shared_models.call import Call, Stat

NO_STATS: list[Stat] = []


class Said(msgspec.Struct, frozen=True):
    """A function's answer, or its beginning: *truncated*. *answered*: there is one."""

    body: bytes = b""
    content_type: str = ""
    truncated: bool = False
    answered: bool = False


NOTHING = Said()


def said(call: Call, response: Response, limit: int) -> Said:
    """The answer to a *call* whose answer is handed in, *limit* bytes of it at most; else nothing."""
    if not wants_answer(call):
        return NOTHING
    body = response.body
    given = next((value for name, value in response.headers if name.lower() == "content-type"), "")
    if body and not given:
        given = content_type.detect(body)
    return Said(body[:limit], given, len(body) > limit, answered=True)


def record_of(
    call: Call,
    end: End,
    node: str,
    *,
    started_at: str = times.NEVER,
    completed_at: str = "",
    stats: list[Stat] = NO_STATS,
    queued: bool,
) -> Call:
    """The record of *call*, which a container was wanted for; *queued*: it has a lease."""
    completed_at, attempt = completed_at or times.now(), max(call.attempt, 1)
    if call.path:
        # Fn's API nodes keep all of a route's call.
        return msgspec.structs.replace(
            call, status=end.status, error=end.error, reason=end.reason, started_at=started_at,
            completed_at=completed_at, attempt=attempt, node=node, stats=stats,
        )  # fmt: skip
    return Call(
        id=call.id, status=end.status, app_id=call.app_id, fn_id=call.fn_id, trigger_id=call.trigger_id,
        type=call.type, created_at=call.created_at, started_at=started_at, completed_at=completed_at,
        error=end.error, reason=end.reason, attempt=attempt, node=node, stats=stats,
        # They say whether a queued call is to be run again, who is told of its end, and what is kept.
        annotations=call.annotations if queued else {}, callback_url=call.callback_url if queued else "",
    )  # fmt: skip


def refusal_of(call: Call, end: End, node: str) -> Call:
    """The record of a queued *call* whose function has seen nothing of it."""
    return msgspec.structs.replace(
        call, status=end.status, error=end.error, reason=end.reason, completed_at=times.now(), node=node,
        attempt=max(call.attempt, 1), payload=b"", config={}, headers={},
    )  # fmt: skip
