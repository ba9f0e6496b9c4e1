"""The same schedule takes the same steps, however often it is played."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import CallLife


def _play(number: int) -> list[list[str]]:
    @seed(number)
    class Played(CallLife):
        traces = []

    run_state_machine_as_test(
        Played,
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Played.traces is not None
    return Played.traces


def test_one_seed_gives_one_trace() -> None:
    first, again = _play(5), _play(5)
    assert sum(map(len, first)) > 500  # much happens in them
    assert again == first


def test_another_seed_gives_another_trace() -> None:
    assert _play(5) != _play(6)
