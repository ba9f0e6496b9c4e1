"""Which starts and results of calls are accepted: pure rules, the same for every log store."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared_models.call import FINAL, CallType, Finished, LeaseKey, Status

OUTCOME = ("status", "error", "reason", "stats", "started_at", "completed_at")
"""What the end of a call changes in its record."""
REASON = 32
"""Characters of a reason that are kept: none that is longer loses its record."""
_RESULT = ("status", "error", "completed_at")


@dataclass(slots=True)
class Verdict:
    """What is to be done with a batch: *new* to insert, *ended* to update, *refused* ids to tell."""

    new: list[Finished] = field(default_factory=list)
    ended: list[Finished] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class Start(enum.Enum):
    """What is to be done with a start."""

    NEW = enum.auto()
    REPEATED = enum.auto()
    REFUSED = enum.auto()


def judge_start(key: LeaseKey, row: Mapping[str, Any] | None) -> Start:
    """Whether the holder of *key* may start the call of the stored *row*.

    Without a token the current lease counts, once; a record that nobody has claimed has none.
    """
    if row is None or not row["token"] or key.token not in ("", row["token"]):
        return Start.REFUSED
    if row["status"] == Status.QUEUED:
        return Start.NEW
    return Start.REPEATED if row["status"] == Status.RUNNING and key.token else Start.REFUSED


def judge(batch: Iterable[Finished], known: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Sorts *batch*, given the stored rows of its ids. The same result again is in none of the lists."""
    verdict = Verdict()
    taken: dict[str, Finished] = {}
    for one in batch:
        call, row = one.call, known.get(one.call.id)
        if call.id in taken:
            if _result(taken[call.id]) != _result(one):
                verdict.refused.append(call.id)
        elif call.status not in FINAL:
            verdict.refused.append(call.id)
        elif row is None and call.type == CallType.DETACHED:
            verdict.refused.append(call.id)  # its record was there before its 202: this one is forged
        elif row is None:
            taken[call.id] = one
            verdict.new.append(one)
        elif row["status"] in FINAL:
            if _result(one) != tuple(row[name] for name in _RESULT):
                verdict.refused.append(call.id)
        elif _may_speak(one, row):
            taken[call.id] = one
            verdict.ended.append(one)
        else:
            verdict.refused.append(call.id)
    return verdict


def _result(one: Finished) -> tuple[str, ...]:
    return tuple(str(getattr(one.call, name)) for name in _RESULT)


def _may_speak(one: Finished, row: Mapping[str, Any]) -> bool:
    """Whether the result is by the holder of the call, and of the very call."""
    same_call = (one.call.fn_id, one.call.app_id) == (row["fn_id"], row["app_id"])
    # Without a token only a call that was started without one may be ended, and only while it runs.
    held = bool(one.token) or row["status"] == Status.RUNNING
    return same_call and held and one.token == row["token"]
