"""Which answers of functions are kept with the ends of their calls, and how: the same for every log store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.callbacks.body import MAX_BODY
from services.logstore.records import PIECE
from shared_models.async_policy import keeps_result
from shared_models.call import Finished

_LONGEST_TYPE = 255


def is_kept(one: Finished) -> bool:
    """Whether there is an answer, and it is to be kept."""
    return one.answered and keeps_result(one.call)


def body_of(one: Finished) -> bytes:
    """As much of the answer as is kept, whatever a runner sends."""
    return one.body[:MAX_BODY]


def was_cut(one: Finished) -> bool:
    """Whether the answer is longer than what is kept."""
    return one.truncated or len(one.body) > MAX_BODY


def type_of(one: Finished) -> str:
    """The type that the function gave its answer; "" for none, and for one that no header could have."""
    given = one.content_type
    return given if len(given) <= _LONGEST_TYPE and given.isascii() and given.isprintable() else ""


def rows_of(one: Finished) -> Iterable[dict[str, Any]]:
    """The rows of a kept answer, in the order of the table's columns; none where nothing is to be kept."""
    if not is_kept(one):
        return
    body, said = body_of(one), {"content_type": type_of(one), "truncated": int(was_cut(one))}
    for number, start in enumerate(range(0, len(body) or 1, PIECE)):
        yield {"call_id": one.call.id, "piece": number, **said, "body": body[start : start + PIECE]}
