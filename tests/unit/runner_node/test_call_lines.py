from __future__ import annotations

import io
import json
import threading

from runner_node import call_lines
from runner_node.call_lines import LONGEST, MOST, open_call_lines
from shared_models.call import Call
from shared_models.telemetry import REGISTRY

CALL = Call(id="c1", app_id="a1", fn_id="f1")


def lost() -> float:
    return REGISTRY.get_sample_value("fn_runner_call_lines_lost_total") or 0.0


async def test_each_line_is_an_object_with_its_call() -> None:
    out = io.StringIO()
    async with open_call_lines(out) as lines:
        follow = lines.following(CALL)
        for piece in (b"one\r\ntw", b"o\n\nun\xff", b"ended", b""):
            follow(piece)
        lines.following(Call(id="c2", app_id="a1", path="/p"))(b"of a route\n")
    said = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["line"] for one in said] == [
        "one",
        "two",
        "",
        "un\N{REPLACEMENT CHARACTER}ended",
        "of a route",
    ]
    assert {name: said[0][name] for name in ("call_id", "app_id", "fn_id")} == {
        "call_id": "c1", "app_id": "a1", "fn_id": "f1",
    }  # fmt: skip
    assert said[-1]["path"] == "/p"
    assert said[0]["time"].endswith("Z")


async def test_a_line_without_an_end_is_cut_and_nothing_of_it_is_kept_for_long() -> None:
    out = io.StringIO()
    async with open_call_lines(out) as lines:
        follow = lines.following(CALL)
        for _ in range(5):
            follow(b"x" * LONGEST)
        follow(b"")
    assert [len(json.loads(line)["line"]) for line in out.getvalue().splitlines()] == [LONGEST] * 5


async def test_a_reader_that_stands_still_costs_lines_and_holds_nobody_back(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(call_lines, "LAST", 0.1)
    go_on = threading.Event()

    class Still(io.StringIO):
        def write(self, text: str) -> int:
            go_on.wait(60)
            return len(text)

    before = lost()
    try:
        async with open_call_lines(Still()) as lines:
            follow = lines.following(CALL)
            for _ in range(MOST + 500):
                follow(b"line\n")
            assert 490 <= lost() - before <= 500
    finally:
        go_on.set()
