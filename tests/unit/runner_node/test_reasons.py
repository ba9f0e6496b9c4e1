"""What an exception means for the record of its call."""

from __future__ import annotations

import pytest

from runner_node import reasons
from runner_node.reasons import End, end_in_function, end_of, end_of_start
from shared_models import errors
from shared_models.call import WITHOUT_RESULT, Reason, Status

TABLE = [
    (errors.CallTimedOut(), Reason.TIMEOUT),
    (errors.ContainerOutOfMemory(), Reason.OOM),
    (reasons.ContainerKilled(), Reason.EXIT),
    (errors.ContainerExited(3), Reason.EXIT),
    (errors.FunctionFailed(), Reason.FUNCTION),
    (errors.FunctionInvalidResponse(), Reason.FUNCTION),
    (errors.FunctionResponseError(), Reason.FUNCTION),
    (errors.FunctionResponseTooLarge(), Reason.FUNCTION),
    (errors.FunctionHeadersTooLarge(), Reason.FUNCTION),
    (errors.FunctionAnswerInvalid("json", "EOF"), Reason.FUNCTION),
    (errors.FunctionAnswerTooLarge(), Reason.FUNCTION),
    (errors.ImagePullFailed("image", "denied"), Reason.NOT_STARTED),
    (errors.ImageHasVolume(), Reason.NOT_STARTED),
    (errors.ContainerInitFailed(), Reason.NOT_STARTED),
    (errors.ContainerInitTimedOut(), Reason.NOT_STARTED),
    (errors.EngineUnavailable(), Reason.NOT_STARTED),
    (errors.DoesNotFit(), Reason.NO_ROOM),
    (errors.ServerBusy(), Reason.NO_ROOM),
    (errors.RunnerStopped(), Reason.RUNNER_STOPPED),
    (errors.FnNotFound(), Reason.GONE),
    (errors.AppNotFound(), Reason.GONE),
    (errors.ClientGone(), Reason.CANCELLED),
    (errors.EventUnusable("not JSON"), Reason.UNUSABLE),
    (errors.Invalid("method"), Reason.UNUSABLE),
    (errors.Conflict("an extension says no"), Reason.UNUSABLE),
]


@pytest.mark.parametrize(("exc", "reason"), TABLE, ids=[type(exc).__name__ for exc, _ in TABLE])
def test_every_failure_has_its_reason(exc, reason):
    status = Status.TIMEOUT if reason is Reason.TIMEOUT else Status.ERROR
    assert end_of(exc) == End(status, exc.explained, reason)


@pytest.mark.parametrize(
    "kind", [kind for kind in errors.BadFunction.__subclasses__() if "text" in vars(kind)]
)
def test_a_functions_failure_is_run_again_only_when_its_container_did_not_start(kind):
    starts = (errors.ContainerInitFailed, errors.ImagePullFailed)
    assert (end_of(kind()).reason in WITHOUT_RESULT) is issubclass(kind, starts)


def test_a_start_that_fails_has_not_started_whatever_failed():
    assert end_of_start(errors.FnError()).reason == Reason.NOT_STARTED
    assert end_of_start(errors.ImageHasVolume()).reason == Reason.NOT_STARTED
    assert end_of_start(errors.DoesNotFit(detail="needs 9 GB")).reason == Reason.NO_ROOM


def test_an_answer_that_is_no_event_is_the_functions_failure():
    assert end_in_function(errors.EventUnusable("no JSON")).reason == Reason.FUNCTION


def test_killed_is_told_in_fns_words():
    assert end_of(reasons.ContainerKilled()).error == errors.ContainerOutOfMemory.text
