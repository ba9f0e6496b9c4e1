"""What is wrong with calls, queued ones among them."""

from __future__ import annotations

import http

from shared_models.errors.kinds import Conflict, FnError, Invalid, NotFound, TooMany


class CallNotFound(NotFound):
    text = "Call not found"


class CallLogNotFound(NotFound):
    text = "Call log not found"


class CallResultNotFound(NotFound):
    text = "Call result not found"


class CallsNotKept(NotFound):
    text = "Calls and their logs are not kept here: the log store is switched off (FN_LOGSTORE_URL=none)"


class LogNotAcceptable(FnError):
    status = http.HTTPStatus.NOT_ACCEPTABLE
    text = "unable to respond within acceptable response content types"


class InvalidFromTime(Invalid):
    text = "from_time is not an epoch time"


class InvalidToTime(Invalid):
    text = "to_time is not an epoch time"


class LeaseLost(Conflict):
    text = "The call's lease is not yours: it ran out, or the call has ended; drop the call"


class CallExists(Conflict):
    text = "A call with this id exists already"


class CallNeverAccepted(Conflict):
    text = "The call with this id was never accepted, and is over: send it as a new call"


class CallEnded(Conflict):
    """A call that cannot be cancelled any more."""

    def __init__(self, status: str) -> None:
        super().__init__(f"The call has ended already: {status}")


class DeadLetterNotFound(NotFound):
    text = "Dead letter not found"


class QueueFull(TooMany):
    """*queued* calls of one function wait, and it may have *limit*."""

    def __init__(self, queued: int, limit: int, retry_after: float) -> None:
        super().__init__(
            f"The queue of this function is full: {queued} calls wait, the limit is {limit}; try again later",
            retry_after=retry_after,
        )
