"""What the driver itself must not get wrong: schedules, ledger, and rules that notice what is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.faults import ledger
from tests.system.faults.book import Accepted, Book, Sync
from tests.system.faults.evidence import Evidence
from tests.system.faults.ledger import Run
from tests.system.faults.rules import judge
from tests.system.faults.schedule import KINDS, schedule

NOW = 1_800_000_000.0


def run(
    call_id: str, attempt: int, type_: str = "detached", started: float = NOW, ended: float = NOW + 1
) -> Run:
    return Run(call_id, attempt, "runner-0", 1, type_, "work", started, ended)


def record(call_id: str, status: str = "success", attempt: int = 1, **more: str) -> dict[str, Any]:
    given = {"id": call_id, "status": status, "attempt": attempt, "fn_id": "F", "type": "detached"}
    return {**given, "completed_at": "2027-01-15T08:00:00.000Z", **more}


def good() -> Evidence:
    """Three calls: one that ran once, one that needed a second attempt, and one that was given up."""
    book = Book(functions={"work": "F", "flaky": "Y", "mute": "M"})
    evidence = Evidence(book, dead={"C"}, logs={"api-0": "all is well"})
    records = (
        record("A"),
        record("B", attempt=2),
        record("C", "error", attempt=2, reason="not_started", fn_id="M"),
    )
    for one in records:
        call_id = one["id"]
        fn = "mute" if call_id == "C" else "work"
        first = call_id == "A"
        book.accept(Accepted(call_id, fn, "work", NOW, key="key" if first else "", callback=first))
        book.see(call_id, one)
        book.finals[call_id].seen = NOW + 10
        evidence.records[call_id] = evidence.again[call_id] = one
        evidence.listed.append(call_id)
    evidence.runs = {"A": [run("A", 1)], "B": [run("B", 1, ended=0), run("B", 2)], "S": [run("S", 0, "sync")]}
    book.callbacks = {"A": [("success", 1)]}
    book.sync = [Sync(200, 0.1, "S"), Sync(0, 0.1), Sync(503, 0.1)]
    return evidence


def test_what_is_right_breaks_no_rule_and_every_rule_has_looked_at_it() -> None:
    verdicts = judge(good())
    assert not [case for verdict in verdicts for case in verdict.broken]
    assert len({verdict.rule for verdict in verdicts}) == len(verdicts)


def no_record(evidence: Evidence) -> None:
    del evidence.records["A"]


def not_ended(evidence: Evidence) -> None:
    evidence.again["A"] = record("A", "running")


def listed_twice(evidence: Evidence) -> None:
    evidence.listed.append("A")


def test_an_older_answer_that_comes_later_is_no_change() -> None:
    evidence = good()
    evidence.book.see("A", record("A", "running"), known=False)
    assert not [rule.broken for rule in judge(evidence) if rule.broken]


def changed(evidence: Evidence) -> None:
    evidence.book.see("A", record("A", "error"))


def queued_again(evidence: Evidence) -> None:
    evidence.book.see("A", record("A", "queued"))


def ran_twice(evidence: Evidence) -> None:
    evidence.runs["A"].append(run("A", 1))


def same_number_twice(evidence: Evidence) -> None:
    evidence.runs["B"] = [run("B", 2), run("B", 2)]


def never_ran(evidence: Evidence) -> None:
    del evidence.runs["A"]


def never_came_to_its_end(evidence: Evidence) -> None:
    evidence.runs["A"][0].ended = 0


def ran_after_its_end(evidence: Evidence) -> None:
    evidence.runs["B"][1].started = NOW + 20


def innocent_call_failed(evidence: Evidence) -> None:
    evidence.book.finals["A"].status = "error"


def cancel_was_not_obeyed(evidence: Evidence) -> None:
    evidence.book.accepted["A"].cancel = "heard"


def dead_letter_is_missing(evidence: Evidence) -> None:
    evidence.dead = set()


def dead_letter_of_a_success(evidence: Evidence) -> None:
    evidence.dead = {"A", "C"}


def no_callback(evidence: Evidence) -> None:
    evidence.book.callbacks.clear()


def callback_of_another_end(evidence: Evidence) -> None:
    evidence.book.callbacks["A"].append(("error", 2))


def one_key_two_calls(evidence: Evidence) -> None:
    evidence.book.accept(Accepted("B", "work", "work", NOW, key="key"))


def wrong_refusal(evidence: Evidence) -> None:
    evidence.book.refusals["409: a call with this id exists already"] += 1


def waited_for_ever(evidence: Evidence) -> None:
    evidence.book.sync.append(Sync(-1, 90.0))


def sync_call_ran_twice(evidence: Evidence) -> None:
    evidence.runs["S"].append(run("S", 0, "sync"))


def something_is_queued(evidence: Evidence) -> None:
    evidence.queued = 1


def something_is_shown_in_the_queue(evidence: Evidence) -> None:
    evidence.shown.append({"fn_id": "F", "queued": 0, "running": 1})


def not_mended(evidence: Evidence) -> None:
    evidence.book.unrecovered.append("kill-api")


def stack_trace(evidence: Evidence) -> None:
    evidence.logs["api-0"] = "error\nTraceback (most recent call last):\n  ..."


def node_broke_down(evidence: Evidence) -> None:
    evidence.exits.append("runner-0 ended with exit code -11")


@pytest.mark.parametrize(
    "harm",
    [
        no_record, not_ended, listed_twice, changed, queued_again, ran_twice, same_number_twice,
        never_ran, never_came_to_its_end, ran_after_its_end, innocent_call_failed,
        cancel_was_not_obeyed, dead_letter_is_missing, dead_letter_of_a_success, no_callback,
        callback_of_another_end, one_key_two_calls, wrong_refusal, waited_for_ever,
        sync_call_ran_twice, something_is_queued, something_is_shown_in_the_queue, not_mended,
        stack_trace, node_broke_down,
    ],
)  # fmt: skip
def test_what_is_wrong_breaks_a_rule(harm: Callable[[Evidence], None]) -> None:
    evidence = good()
    harm(evidence)
    assert [case for verdict in judge(evidence) for case in verdict.broken]


def test_a_runner_that_stood_still_is_excused_for_what_it_could_not_know() -> None:
    evidence = good()
    ran_after_its_end(evidence)
    evidence.book.frozen.append(("runner-0", NOW, NOW + 19.5))
    assert not [case for verdict in judge(evidence) for case in verdict.broken]


def test_a_schedule_is_a_function_of_its_seed() -> None:
    assert schedule(5, 75) == schedule(5, 75)
    assert schedule(5, 75) != schedule(6, 75)
    long = schedule(5, 1800)
    assert {fault.kind for fault in long} == set(KINDS)
    assert len(long) > 200
    assert all(fault.end < 1830 and fault.target in KINDS[fault.kind].targets for fault in long)


def test_a_short_schedule_has_every_kind_once() -> None:
    for seed in range(50):
        short = schedule(seed, 75)
        assert sorted(fault.kind for fault in short) == sorted(KINDS)
        assert all(fault.end < 110 for fault in short)


def test_no_target_has_two_faults_at_once() -> None:
    for seed in range(50):
        ends: dict[str, float] = {}
        for fault in schedule(seed, 600):
            if fault.kind not in ("poison", "cancel"):
                assert fault.at >= ends.get(fault.target, 0.0)
                ends[fault.target] = fault.end


def test_the_ledger_pairs_the_lines_of_runs_that_overlap(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    common = {"attempt": 1, "node": "runner-0", "type": "detached", "do": "work"}
    lines = [
        {"what": "start", "at": 1.0, "id": "A", "pid": 1, **common},
        {"what": "start", "at": 2.0, "id": "A", "pid": 2, **{**common, "attempt": 2}},
        {"what": "end", "at": 3.0, "id": "A", "pid": 2, **common},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = ledger.read(file)["A"]
    assert (first.attempt, first.started, first.ended) == (1, 1.0, 0.0)
    assert (second.attempt, second.started, second.ended) == (2, 2.0, 3.0)
