"""Every sentence of the guarantee as a check of the evidence: how many cases, and which break it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.system.faults.book import FINAL
from tests.system.faults.evidence import Evidence

WITHOUT_RESULT = frozenset({"not_started", "no_room", "runner_lost", "runner_stopped", "expired"})
"""Reasons of calls that end as dead letters."""
_UNDER_WAY = 1.0
"""Seconds between the moment that a runner may start a call and the function's first line."""

_Check = Callable[[Evidence], Iterator[str | None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """*rule* was looked at *cases* times; *broken* names those that break it."""

    rule: str
    cases: int
    broken: list[str]


def judge(evidence: Evidence) -> list[Verdict]:
    """One verdict per rule."""
    return [_verdict(check, evidence) for check in CHECKS]


def _verdict(check: _Check, evidence: Evidence) -> Verdict:
    found = list(check(evidence))
    rule = " ".join((check.__doc__ or "").split()).removesuffix(".")
    return Verdict(rule, len(found), [case for case in found if case])


def _ends(evidence: Evidence) -> Iterator[str | None]:
    """A call that was answered with 202 ends: it has one record, which is final, on both API nodes."""
    listed = Counter(evidence.listed)
    for call_id in evidence.book.accepted:
        first, second = evidence.records.get(call_id), evidence.again.get(call_id)
        if not first or not second:
            yield f"{call_id} has no record"
        elif first["status"] not in FINAL or second["status"] not in FINAL:
            yield f"{call_id} is {first['status']}, then {second['status']}"
        else:
            yield None if listed[call_id] == 1 else f"{call_id} is listed {listed[call_id]} times"


def _never_changes(evidence: Evidence) -> Iterator[str | None]:
    """A final state never changes, from the moment that it was first seen."""
    yield from [None] * len(evidence.book.finals)
    yield from evidence.book.changed


def _once(evidence: Evidence) -> Iterator[str | None]:
    """Untouched by faults, a call runs exactly once: its first attempt ended it, and there is one run."""
    for call_id, final in evidence.book.finals.items():
        runs = len(evidence.runs.get(call_id, []))
        if final.attempt == 1 and final.status in ("success", "timeout"):
            yield None if runs == 1 else f"{call_id}: {final.told}, {runs} runs"


def _visible(evidence: Evidence) -> Iterator[str | None]:
    """Each run of a call is visible as an attempt: no more runs than attempts, each with another number."""
    for call_id, final in evidence.book.finals.items():
        attempts = [run.attempt for run in evidence.runs.get(call_id, [])]
        numbers = [number for number in attempts if number]
        known = len(numbers) == len(set(numbers)) and all(number <= final.attempt for number in numbers)
        yield (
            None if len(attempts) <= final.attempt and known else f"{call_id}: {final.told}, runs {attempts}"
        )


def _complete(evidence: Evidence) -> Iterator[str | None]:
    """A call that succeeded has run to its end at least once."""
    for call_id, final in evidence.book.finals.items():
        if final.status == "success":
            ended = any(run.ended for run in evidence.runs.get(call_id, []))
            yield None if ended else f"{call_id}: {final.told}, no run came to its end"


def _over(evidence: Evidence) -> Iterator[str | None]:
    """No run starts after its call's end was recorded (but for a runner that stood still just before)."""
    for call_id, final in evidence.book.finals.items():
        for run in evidence.runs.get(call_id, []):
            late = run.started - final.seen
            excused = any(
                node == run.node and begin <= run.started <= end + _UNDER_WAY
                for node, begin, end in evidence.book.frozen
            )
            wrong = late > _UNDER_WAY and not excused
            yield f"{call_id}: attempt {run.attempt} began {late:.1f} s late on {run.node}" if wrong else None


def _as_asked(evidence: Evidence) -> Iterator[str | None]:
    """What a function does is what its call's record says: an innocent call has no poisoned one's reason."""
    for call in evidence.book.accepted.values():
        final = evidence.book.finals.get(call.call_id)
        if not final or final.reason in WITHOUT_RESULT or final.status == "cancelled":
            continue
        if call.fn in ("mute", "missing"):
            yield f"{call.call_id}: {call.fn} ended as {final.told}"
        elif call.do in ("exit", "kill"):
            yield None if final.status == "error" else f"{call.call_id}: {call.do} ended as {final.told}"
        elif call.do == "fail":
            failed = call.until > final.attempt
            yield (
                None if (final.status == "error") == failed else f"{call.call_id}: {call.until} {final.told}"
            )
        else:
            yield None if final.status == "success" else f"{call.call_id}: {call.do} ended as {final.told}"


def _cancelled(evidence: Evidence) -> Iterator[str | None]:
    """A call whose cancel was heard ends as cancelled, and no other does."""
    for call in evidence.book.accepted.values():
        final = evidence.book.finals.get(call.call_id)
        if call.cancel != "unclear" and final:
            right = (final.status == "cancelled") == (call.cancel == "heard")
            yield (
                None
                if right
                else f"{call.call_id}: cancel {call.cancel or 'not asked or refused'}, {final.told}"
            )


def _dead_letters(evidence: Evidence) -> Iterator[str | None]:
    """There is a dead letter for each call that ended without a result, and for no other."""
    if evidence.dead is None:
        return
    flaky = evidence.book.functions.get("flaky")
    for call_id, record in evidence.records.items():
        given_up = record["status"] == "error" and record["fn_id"] == flaky
        wanted = record.get("reason", "") in WITHOUT_RESULT or given_up
        if record["status"] in FINAL:
            has = call_id in evidence.dead
            yield (
                None if wanted == has else f"{call_id}: {record['status']} {record.get('reason')}, dead {has}"
            )


def _called_back(evidence: Evidence) -> Iterator[str | None]:
    """The end of a call is posted to its callback, as its record has it, once or more often."""
    for call in evidence.book.accepted.values():
        final = evidence.book.finals.get(call.call_id)
        if final and call.callback:
            posted = evidence.book.callbacks.get(call.call_id, [])
            right = set(posted) == {(final.status, final.attempt)}
            yield None if right else f"{call.call_id}: {final.told}, posted {posted}"


def _refused(evidence: Evidence) -> Iterator[str | None]:
    """Who is not served is told 429 or 503, or finds the connection broken: the request is right."""
    for told, times in evidence.book.refusals.items():
        known = told in ("429", "503", "connection", "no answer in time")
        yield from [None if known else f"{times} times {told}"] * times
    for sync in evidence.book.sync:
        yield None if sync.status in (200, 429, 503, 0, -1) else f"{sync.call_id}: {sync.status}"


def _one_key(evidence: Evidence) -> Iterator[str | None]:
    """The same idempotency key is the same call, however often and wherever it is sent."""
    for key, ids in evidence.book.by_key.items():
        yield None if len(set(ids)) == 1 else f"{key}: {sorted(set(ids))}"


def _answered(evidence: Evidence) -> Iterator[str | None]:
    """A sync call gets an answer or a broken connection: nobody waits for ever."""
    for sync in evidence.book.sync:
        yield f"no answer within {sync.took:.0f} s" if sync.status == -1 else None


def _sync_once(evidence: Evidence) -> Iterator[str | None]:
    """A sync call runs once at most, and exactly once when it was answered with 200."""
    for call_id, runs in evidence.runs.items():
        if runs[0].type == "sync":
            yield None if len(runs) == 1 else f"{call_id}: {len(runs)} runs"
    for sync in evidence.book.sync:
        if sync.status == 200:
            yield (
                None
                if len(evidence.runs.get(sync.call_id, [])) == 1
                else f"{sync.call_id}: 200 without a run"
            )


def _conserved(evidence: Evidence) -> Iterator[str | None]:
    """Queued + leased + done + dead = accepted: at rest nothing is queued, what was accepted has ended."""
    yield f"{evidence.queued} calls in the queue" if evidence.queued else None
    yield f"API nodes show {evidence.shown} in the queue" if evidence.shown else None
    ended = sum(call_id in evidence.book.finals for call_id in evidence.book.accepted)
    accepted = len(evidence.book.accepted)
    yield None if ended == accepted else f"{ended} of {accepted} accepted calls have ended"


def _recovers(evidence: Evidence) -> Iterator[str | None]:
    """After a fault its place works again within a minute: a call is accepted there, and ends."""
    yield from [None] * len(evidence.book.recoveries)
    yield from evidence.book.unrecovered


def _no_traces(evidence: Evidence) -> Iterator[str | None]:
    """No node logs a stack trace or a leaked resource, and none ends by itself with another code than 1."""
    for name, text in evidence.logs.items():
        lines = text.splitlines()
        found = [n for n, line in enumerate(lines) if "Traceback" in line or "ResourceWarning" in line]
        yield from (f"{name}: {lines[n - 1]} ... {_end_of_trace(lines[n:])}" for n in found)
        yield None
    yield from (None if end.endswith(" 1") else end for end in evidence.exits)


def _end_of_trace(lines: list[str]) -> str:
    """The line that names the exception: the first behind the trace that is not indented."""
    return next((line for line in lines[1:] if line.strip() and not line.startswith(" ")), lines[0])


CHECKS: tuple[_Check, ...] = (
    _ends, _never_changes, _once, _visible, _complete, _over, _as_asked, _cancelled, _dead_letters,
    _called_back, _refused, _one_key, _answered, _sync_once, _conserved, _recovers, _no_traces,
)  # fmt: skip
