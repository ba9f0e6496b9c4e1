"""How a call ended, for its record: what an exception means, in one place."""

from __future__ import annotations

import msgspec

from shared_models import errors
from shared_models.call import Reason, Status


class ContainerKilled(errors.ContainerOutOfMemory):
    """Exit code 137 without the engine's word that memory ran out.

    Fn takes it for out of memory, and its words are kept; the reason is the true one.
    """


class NeverReached(errors.FunctionResponseError):
    """The container was gone before anything of the call was sent to it: another one can take the call."""


class End(msgspec.Struct, frozen=True):
    """The *status* of a call that ended, *error* for people and *reason* for machines."""

    status: Status
    error: str = ""
    reason: str = ""


SUCCESS = End(Status.SUCCESS)

_REASONS: tuple[tuple[type[errors.FnError], Reason], ...] = (
    # The first that fits counts: leaves stand before what they are kinds of.
    (errors.CallTimedOut, Reason.TIMEOUT),
    (ContainerKilled, Reason.EXIT),
    (errors.ContainerOutOfMemory, Reason.OOM),
    (errors.ContainerExited, Reason.EXIT),
    (errors.ImagePullFailed, Reason.NOT_STARTED),
    (errors.ImageHasVolume, Reason.NOT_STARTED),
    (errors.ContainerInitFailed, Reason.NOT_STARTED),
    (errors.ContainerInitTimedOut, Reason.NOT_STARTED),
    (errors.EngineUnavailable, Reason.NOT_STARTED),
    (errors.DoesNotFit, Reason.NO_ROOM),
    (errors.RunnerStopped, Reason.RUNNER_STOPPED),
    (errors.Unavailable, Reason.NO_ROOM),
    (errors.ClientGone, Reason.CANCELLED),
    (errors.NotFound, Reason.GONE),
    (errors.BadFunction, Reason.FUNCTION),
)


def status_of(exc: errors.FnError) -> Status:
    """``timeout`` when the function ran out of time, else ``error``."""
    return Status.TIMEOUT if isinstance(exc, errors.CallTimedOut) else Status.ERROR


def reason_of(exc: errors.FnError) -> Reason:
    """Why a call failed with *exc*; what is none of the known is a call that nobody could use."""
    return next((reason for kind, reason in _REASONS if isinstance(exc, kind)), Reason.UNUSABLE)


def end_of(exc: errors.FnError, reason: Reason | None = None) -> End:
    """The end of a call that failed with *exc*, for *reason* where the place of the failure tells it."""
    return End(status_of(exc), exc.recorded, reason or reason_of(exc))


def end_of_start(exc: errors.FnError) -> End:
    """The end of a call for which no container could be started."""
    return end_of(exc, Reason.NO_ROOM if isinstance(exc, errors.DoesNotFit) else Reason.NOT_STARTED)


def end_in_function(exc: errors.FnError) -> End:
    """The end of a call that failed while its function had it."""
    # An event that cannot be carried is, once the function has the call, its answer.
    return end_of(exc, Reason.FUNCTION if isinstance(exc, errors.EventUnusable) else None)
