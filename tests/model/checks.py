"""The guarantee, as checks of what happened in the model."""

from __future__ import annotations

from shared_models import async_policy
from shared_models.call import FINAL
from tests.model.history import History, Outcome, Plan, Violation
from tests.model.world import World

_RESULT = ("status", "error", "reason", "attempt", "started_at", "completed_at", "node")


def at_each_step(world: World) -> None:
    """What holds at any moment."""
    history = world.history
    records, queued = world.records(), world.queued()
    for call_id, row in records.items():
        now = tuple(row.get(name) for name in _RESULT)
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
    history = world.history
    records = world.records()
    if queued := world.queued():
        raise Violation(f"conservation: {sorted(map(history.name, queued))} are still in the queue")
    for call_id in history.plans:
        row = records.get(call_id)
        if row is None:
            if call_id in history.accepted:
                raise Violation(f"lost: {history.name(call_id)} was accepted and has no record")
            continue
        _check_end(history, history.plans[call_id], row)


def _check_end(history: History, plan: Plan, row: dict[str, object]) -> None:
    call_id, name = plan.call.id, plan.name
    runs = history.runs_of(call_id)
    if row["status"] not in FINAL:
        raise Violation(f"no end: {name} is {row['status']}")
    attempt = row["attempt"]
    assert isinstance(attempt, int)
    if len(runs) > attempt:
        raise Violation(f"attempts: {name} was run {len(runs)} times, its record says {attempt}")
    if row["status"] == "success" and not runs:
        raise Violation(f"no run: {name} ended as success and was never run")
    if row["status"] != "success" and not (row["error"] and row["reason"]):
        raise Violation(f"no reason: {name} ended as {row['status']} and nothing says why")
    if call_id in history.accepted and call_id not in history.touched:
        expected = _undisturbed(plan)
        found = (len(runs), row["status"])
        if found != expected:
            raise Violation(f"no fault touched {name}: expected {expected}, found {found}, {row['reason']}")


def _undisturbed(plan: Plan) -> tuple[int, str]:
    """How often a call runs, and how it ends, when nothing goes wrong but what it does itself."""
    most = async_policy.max_attempts(plan.call, async_policy.DEFAULTS)
    given = plan.call.annotations.get(async_policy.RETRY_ON)
    repeated = {Outcome.NOT_STARTED} | ({Outcome.ERROR, Outcome.TIMEOUT, Outcome.OOM} if given else set())
    runs = 0
    for attempt in range(1, most + 1):
        outcome = plan.outcomes[min(attempt, len(plan.outcomes)) - 1]
        runs += outcome is not Outcome.NOT_STARTED
        if outcome not in repeated or attempt == most:
            return runs, {Outcome.SUCCESS: "success", Outcome.TIMEOUT: "timeout"}.get(outcome, "error")
    raise AssertionError("unreachable")
