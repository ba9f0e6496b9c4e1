"""Buckets of apps: what they let through, what they say, and what changes of an app do to them."""

from __future__ import annotations

import pytest

from runner_node import rates
from runner_node.rates import Rates
from shared_models.app import App
from shared_models.errors import RateLimited
from shared_models.telemetry import REGISTRY
from shared_models.workers import Place
from tests.unit.shared_models.test_invoke_policy import notes


class Clock:
    """Stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def app(name: str = "shop", **values: object) -> App:
    return App(id=f"id of {name}", name=name, annotations=notes(**values))


def let_through(found: Rates, one: App, tries: int = 1000) -> int:
    """How many of that many calls at once."""
    return sum(found.has_room(one) for _ in range(tries))


def test_an_app_without_a_limit_has_none() -> None:
    assert let_through(Rates(0.0), app()) == 1000


def test_a_burst_comes_through_and_then_the_rate() -> None:
    clock = Clock()
    found, one = Rates(0.0, clock=clock), app(rate=10, burst=30)
    assert let_through(found, one) == 30
    for _ in range(5):
        clock.now += 0.5
        assert let_through(found, one) == 5
    clock.now += 3600.0
    assert let_through(found, one) == 30, "what is not used is not saved beyond the burst"


def test_a_rate_below_one_lets_one_through_now_and_then() -> None:
    clock = Clock()
    found, one = Rates(0.0, clock=clock), app(rate=0.1)
    assert let_through(found, one) == 1
    clock.now += 9.9
    assert let_through(found, one) == 0
    clock.now += 0.2
    assert let_through(found, one) == 1


def test_apps_have_buckets_of_their_own() -> None:
    found = Rates(5.0, clock=Clock())
    assert let_through(found, app("a")) == 5
    assert let_through(found, app("b", rate=7)) == 7
    assert let_through(found, app("a")) == 0


def test_a_refusal_says_the_limit_the_app_and_when_to_come_again() -> None:
    found, one = Rates(0.0, Place(0, 4), clock=Clock()), app(rate=2, burst=4)
    found.count(one)
    with pytest.raises(RateLimited) as caught:
        found.count(one)
    assert caught.value.code == 429
    assert caught.value.retry_after == pytest.approx(2.0)
    assert caught.value.message == (
        "App shop is called too often: this runner node takes 2 calls a second and 4 at once; "
        "try again in 2.0 s"
    )


def test_workers_share_what_a_node_takes() -> None:
    clock = Clock()
    workers = [Rates(0.0, Place(number, 4), clock=clock) for number in range(4)]
    assert sum(let_through(one, app(rate=40, burst=80)) for one in workers) == 80
    clock.now += 1.0
    assert sum(let_through(one, app(rate=40, burst=80)) for one in workers) == 40


@pytest.mark.parametrize(("burst", "taken"), [(1, 4), (3, 4), (4, 4), (5, 5), (7, 7), (81, 81)])
def test_a_burst_is_shared_to_the_last_call_but_no_worker_is_left_without(burst: int, taken: int) -> None:
    workers = [Rates(0.0, Place(number, 4), clock=Clock()) for number in range(4)]
    assert sum(let_through(one, app(rate=1, burst=burst)) for one in workers) == taken


def test_the_same_app_read_again_has_the_same_bucket() -> None:
    found = Rates(0.0, clock=Clock())
    assert let_through(found, app(rate=10)) == 10
    assert let_through(found, app(rate=10)) == 0


def test_a_changed_rate_gives_no_new_burst() -> None:
    clock = Clock()
    found = Rates(0.0, clock=clock)
    assert let_through(found, app(rate=10)) == 10
    assert let_through(found, app(rate=100)) == 0
    clock.now += 0.5
    assert let_through(found, app(rate=100)) == 50
    clock.now += 60.0
    assert let_through(found, app(rate=3)) == 3
    assert let_through(found, app()) == 1000


def test_what_is_refused_is_counted_by_app_and_apps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(name: str) -> float:
        return REGISTRY.get_sample_value("fn_rate_limited_total", {"app": name}) or 0.0

    monkeypatch.setattr(rates, "_counted", set())
    monkeypatch.setattr(rates, "MAX_APPS", 3)
    found, before = Rates(1.0, clock=Clock()), counted("other")
    for number in range(5):
        one = app(f"rated-{number}")
        found.count(one)
        for _ in range(2):
            with pytest.raises(RateLimited):
                found.count(one)
    assert [counted(f"rated-{number}") for number in range(5)] == [2, 2, 2, 0, 0]
    assert counted("other") - before == 4


def test_buckets_of_apps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SIZE", 10)
    found = Rates(1.0, clock=Clock())
    for number in range(100):
        assert found.has_room(app(f"a{number}"))
    assert len(found._known) <= 10


def test_an_app_that_is_called_all_the_time_gets_no_new_burst_when_many_others_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rates, "SIZE", 10)
    clock = Clock()
    found, busy = Rates(0.0, clock=clock), app("busy", rate=0.001, burst=5)
    assert let_through(found, busy) == 5
    for number in range(100):
        clock.now += 0.01
        assert not found.has_room(busy)
        assert found.has_room(app(f"a{number}", rate=1))
        assert found.has_room(app(f"b{number}"))
