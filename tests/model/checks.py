"""The guarantee, as checks of what happened in the model."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_models import async_policy
from shared_models.async_policy import DEFAULTS
from shared_models.call import FINAL, Reason
from tests.model.history import History, Outcome, Plan, Violation
from tests.model.world import World

_RESULT = ("status", "error", "reason", "attempt", "started_at", "completed_at", "node")


def at_each_step(world: World) -> None:
    """What holds at any moment."""
    history = world.history
    if history.defects:
        raise history.defects[0]
    records, queued = world.records(), world.queued()
    for call_id, row in records.items():
        now = tuple(row[name] for name in _RESULT)
        before = history.finals.get(call_id)
        if before is not None and before != now:
            raise Violation(f"final state: {history.name(call_id)} was {before} and is {now}")
        if row["status"] in FINAL:
            history.finals[call_id] = now
    for call_id in history.finals:
        if call_id not in records:
            raise Violation(f"final state: the record of {history.name(call_id)} is gone")
    for call_id in history.accepted:
        if call_id not in history.finals and call_id not in queued:
            raise Violation(f"lost: {history.name(call_id)} was accepted, is not final and in no queue")
    for call_id in history.cancelled:
        if records[call_id]["status"] != "cancelled":
            raise Violation(f"cancel: {history.name(call_id)} is {records[call_id]['status']}")
    for ids in history.keys.values():
        if len(ids) > 1:
            names = sorted(map(history.name, ids))
            raise Violation(f"idempotency: one key stands for {', '.join(names)}")
    attempts = [(run.call_id, run.attempt) for run in history.runs]
    if len(attempts) != len(set(attempts)):
        twice = next(one for one in attempts if attempts.count(one) > 1)
        raise Violation(f"attempts: {history.name(twice[0])} was run twice as attempt {twice[1]}")


def at_rest(world: World) -> None:
    """What holds when all faults are over and nothing is left to do."""
    history, records = world.history, world.records()
    if queued := world.queued():
        raise Violation(f"conservation: {sorted(map(history.name, queued))} are still in the queue")
    letters, callbacks = world.letters(), world.callbacks()
    for call_id, plan in history.plans.items():
        row = records.get(call_id)
        if row is None:
            if call_id in history.accepted:
                raise Violation(f"lost: {plan.name} was accepted and has no record")
            if call_id in letters:
                raise Violation(f"dead letters: {plan.name} was never accepted and has one")
            continue
        _check_end(history, plan, row)
        _check_letter(history, plan, row, letters.get(call_id))
        end = (call_id, row["status"], row["attempt"])
        # Of what was not in the queue when it ended nobody knows the address.
        unknown = row["reason"] == Reason.LOST or call_id in history.cancelled_early
        queued_as = history.queued_as.get(call_id)
        if queued_as and queued_as.callback_url and not unknown and end not in callbacks:
            raise Violation(f"callback: that of {plan.name} is missing")


def _check_end(history: History, plan: Plan, row: dict[str, Any]) -> None:
    call_id, name = plan.call.id, plan.name
    runs = history.runs_of(call_id)
    if row["status"] not in FINAL:
        raise Violation(f"no end: {name} is {row['status']}")
    if row["reason"] == Reason.LOST and call_id in history.accepted and call_id not in history.stalled:
        raise Violation(f"lost: {name} was accepted and ended as one that was not")
    if len(runs) > row["attempt"]:
        raise Violation(f"attempts: {name} was run {len(runs)} times, its record says {row['attempt']}")
    most = async_policy.max_attempts(plan.call, DEFAULTS)
    if row["attempt"] > most:
        raise Violation(f"attempts: {name} had {row['attempt']}")
    if row["status"] == "success" and not runs:
        raise Violation(f"no run: {name} ended as success and was never run")
    if row["status"] != "success" and not (row["error"] and row["reason"]):
        raise Violation(f"no reason: {name} ended as {row['status']} and nothing says why")
    if call_id in history.accepted and call_id not in history.touched and row["reason"] != Reason.EXPIRED:
        expected, found = _undisturbed(plan), (len(runs), row["status"])
        if found != expected:
            raise Violation(f"no fault touched {name}: expected {expected}, found {found}, {row['reason']}")


def _check_letter(history: History, plan: Plan, row: dict[str, Any], letter: dict[str, Any] | None) -> None:
    end = msgspec.structs.replace(plan.call, status=row["status"], reason=row["reason"])
    given_up = row["reason"] in (Reason.EXPIRED, Reason.RUNNER_LOST)
    dead = given_up or (row["reason"] != Reason.LOST and async_policy.wants_retry(end, DEFAULTS))
    if letter and not dead:
        raise Violation(f"dead letters: {plan.name} ended as {row['status']}, {row['reason']} and has one")
    if dead and not letter and plan.call.id not in history.redriven:
        raise Violation(f"dead letters: {plan.name} ended as {row['status']}, {row['reason']} and has none")
    if letter and letter["payload"] != plan.call.payload:
        raise Violation(f"dead letters: that of {plan.name} is not whole")


def _undisturbed(plan: Plan) -> tuple[int, str]:
    """How often a call runs, and how it ends, when nothing goes wrong but what it does itself."""
    most = async_policy.max_attempts(plan.call, DEFAULTS)
    given = plan.call.annotations.get(async_policy.RETRY_ON)
    repeated = {Outcome.NOT_STARTED} | ({Outcome.ERROR, Outcome.TIMEOUT, Outcome.OOM} if given else set())
    runs = 0
    for attempt in range(1, most + 1):
        outcome = plan.outcomes[min(attempt, len(plan.outcomes)) - 1]
        runs += outcome is not Outcome.NOT_STARTED
        if outcome not in repeated or attempt == most:
            return runs, {Outcome.SUCCESS: "success", Outcome.TIMEOUT: "timeout"}.get(outcome, "error")
    raise AssertionError("unreachable")
