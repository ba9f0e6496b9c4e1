from __future__ import annotations

import pytest

from services.callbacks.posting import Answer, Outcome
from services.callbacks.retries import REFUSALS, last_straw, pause
from services.callbacks.settings import CallbackSettings

SETTINGS = CallbackSettings()
FAILED = Answer(Outcome.FAILED, "status 500")


@pytest.mark.parametrize(("tries", "most"), [(1, 5), (2, 10), (3, 20), (10, 2560), (11, 3600), (5000, 3600)])
def test_pauses_double_up_to_an_hour_and_differ(tries: int, most: float) -> None:
    pauses = [pause(tries, FAILED, SETTINGS) for _ in range(100)]
    assert all(0.75 * most <= one <= most for one in pauses)
    assert len(set(pauses)) > 1


def test_a_receiver_may_ask_for_a_longer_pause_but_not_for_a_day() -> None:
    assert pause(1, Answer(Outcome.FAILED, "status 429", 60.0), SETTINGS) == 60
    assert pause(1, Answer(Outcome.FAILED, "status 429", 86400.0), SETTINGS) == 3600
    assert pause(10, Answer(Outcome.FAILED, "status 429", 60.0), SETTINGS) > 60


def test_failures_are_repeated_until_the_callback_is_too_old() -> None:
    assert last_straw(1000, 86400.0, FAILED, SETTINGS) == ""
    assert last_straw(1, 86401.0, FAILED, SETTINGS) == "as it is too old"


def test_refusals_are_repeated_a_few_times() -> None:
    refused = Answer(Outcome.REFUSED, "status 404")
    assert last_straw(REFUSALS - 1, 0.0, refused, SETTINGS) == ""
    assert last_straw(REFUSALS, 0.0, refused, SETTINGS) == "as it is refused each time"


def test_a_receiver_that_is_gone_is_not_asked_again() -> None:
    assert last_straw(1, 0.0, Answer(Outcome.GONE, "status 410"), SETTINGS) == "as the receiver asks"
