"""Goals and medians of the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks.measuring import Goal, label, medians, percentile

ROWS = [
    {"callers": 1, "of_bare": 0.9, "p99_ms": 1.0},
    {"callers": 16, "of_bare": 0.5, "p99_ms": 4.0},
    {"callers": 64, "of_bare": 0.6},
]


def test_a_goal_is_about_the_rows_that_it_names() -> None:
    goal = Goal("", "of_bare", least=0.6, where={"callers": lambda callers: callers >= 16})
    assert [(row["callers"], good) for row, _, good in goal.check(ROWS)] == [(16, False), (64, True)]


def test_a_goal_is_not_about_rows_without_its_figure() -> None:
    goal = Goal("", "p99_ms", most=3.0)
    assert [(row["callers"], value, good) for row, value, good in goal.check(ROWS)] == [
        (1, 1.0, True),
        (16, 4.0, False),
    ]


def test_a_goal_is_about_a_row_that_is_just_so() -> None:
    goal = Goal("", "of_bare", least=1.0, where={"callers": 1})
    assert [row["callers"] for row, _, _ in goal.check(ROWS)] == [1]


def test_rounds_become_medians_and_errors_a_sum() -> None:
    rounds = [{"p50_ms": value, "errors": errors} for value, errors in ((9.0, 0.0), (1.0, 2.0), (2.0, 1.0))]
    assert medians(rounds) == {"p50_ms": 2.0, "errors": 3.0}


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [((), 0.5, 0.0), ((3.0,), 0.99, 3.0), (tuple(map(float, range(100))), 0.95, 95.0)],
)
def test_percentiles(values: tuple[float, ...], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_a_row_is_named_by_what_comes_before_its_figures() -> None:
    assert (
        label({"stores": "SQLite", "callers": 16, "per_second": 1.0, "calls": 3})
        == "stores SQLite, callers 16"
    )
