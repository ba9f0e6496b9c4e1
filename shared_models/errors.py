"""Every error that a client can be told, each leaf with the exact words and status of Fn.

    FnError
    +-- Invalid 400            what was asked for breaks a rule
    +-- Unauthorized 401       no valid token or certificate
    +-- NotFound 404
    +-- LogNotAcceptable 406
    +-- Conflict 409           it exists already, or somebody else holds it
    +-- TooLarge 413
    +-- TooMany 429            one function has too much waiting; knows when
    +-- BadFunction 502        the function's fault: its author must act
    +-- TimedOut 504
    +-- Unavailable 503        the one kind that a client may repeat; knows when

The words are a contract (api/models/error.go of Fn 0.3.484 and 0.3.753); what Fn does not know is
worded here. A function that fails is a result, not an exception: inside the agent these travel as
values in a call's outcome.
"""

from __future__ import annotations

import http
from typing import ClassVar


class FnError(Exception):
    """Base of all; *message* is what the client reads, *detail* goes to the log and a header."""

    status: ClassVar[int] = 500
    text: ClassVar[str] = "internal server error"

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        self.message = message or self.text
        self.detail = detail
        super().__init__(self.message)

    @property
    def code(self) -> int:
        """The status to answer with."""
        return self.status

    @property
    def explained(self) -> str:
        """Message and detail on one line, for logs and records."""
        return f"{self.message}: {self.detail}" if self.detail else self.message


class Invalid(FnError):
    status = http.HTTPStatus.BAD_REQUEST
    text = "Bad request"


class Unauthorized(FnError):
    status = http.HTTPStatus.UNAUTHORIZED
    text = "Unauthorized"


class NotFound(FnError):
    status = http.HTTPStatus.NOT_FOUND
    text = "Not found"


class Conflict(FnError):
    status = http.HTTPStatus.CONFLICT
    text = "Conflict"


class TooLarge(FnError):
    status = http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    text = "Request body too large"


class TooMany(FnError):
    """*retry_after*: seconds after which a repetition has a chance."""

    status = http.HTTPStatus.TOO_MANY_REQUESTS
    text = "Too many requests"

    def __init__(self, message: str = "", *, detail: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after


class BadFunction(FnError):
    status = http.HTTPStatus.BAD_GATEWAY
    text = "error receiving function response"


class TimedOut(FnError):
    status = http.HTTPStatus.GATEWAY_TIMEOUT
    text = "Timed out"


class Unavailable(FnError):
    """*retry_after*: seconds after which a repetition has a chance."""

    status = http.HTTPStatus.SERVICE_UNAVAILABLE
    text = "Service unavailable"

    def __init__(self, message: str = "", *, detail: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after


# -- what is asked for -------------------------------------------------------------------------


class InvalidJSON(Invalid):
    text = "Invalid JSON"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail=detail)


class BadCursor(Invalid):
    text = "Invalid cursor, use the next_cursor of the previous page"


# -- apps --------------------------------------------------------------------------------------


class AppNotFound(NotFound):
    text = "App not found"


class AppExists(Conflict):
    text = "App already exists"


class AppNameImmutable(Conflict):
    text = "Could not update - name is immutable"


class AppMissingName(Invalid):
    text = "Missing Name"


class AppNameTooLong(Invalid):
    text = "App name must be 255 characters or less"


class AppNameTooLongForV1(Invalid):
    text = "App name must be 30 characters or less"


class AppInvalidName(Invalid):
    text = "Invalid app name"


class AppMissingNameInPath(Invalid):
    text = "Missing app name"


class AppMissing(Invalid):
    text = "Missing new application"


class AppIDProvided(Invalid):
    text = "App ID cannot be supplied on create"


class AppIDMismatch(Invalid):
    text = "App ID in path does not match ID in body"


class AppInvalidShape(Invalid):
    text = "Invalid app shape"


class InvalidSyslogURL(Invalid):
    text = "invalid syslog url"


# -- annotations -------------------------------------------------------------------------------


class InvalidAnnotationKey(Invalid):
    text = "Invalid annotation key, annotation keys must be non-empty ascii strings excluding whitespace"


class InvalidAnnotationKeyLength(Invalid):
    text = "Invalid annotation key length, annotation keys may not be larger than 128 bytes"


class InvalidAnnotationValue(Invalid):
    text = (
        "Invalid annotation value, annotation values may only be "
        "non-empty strings, numbers, objects, or arrays"
    )


class InvalidAnnotationValueLength(Invalid):
    text = (
        "Invalid annotation value length, annotation values may not be larger than 512 bytes "
        "when serialized as JSON"
    )


class TooManyAnnotations(Invalid):
    text = "Invalid annotation change, new key(s) exceed maximum permitted number of annotations keys (100)"


# -- fns ---------------------------------------------------------------------------------------


class FnNotFound(NotFound):
    text = "Fn not found"


class FnExists(Conflict):
    text = "Fn with specified name already exists"


class FnIDProvided(Invalid):
    text = "ID cannot be provided for Fn creation"


class FnIDMismatch(Invalid):
    text = "Fn ID in path does not match that in body"


class FnMissingName(Invalid):
    text = "Missing Fn name"


class FnNameTooLong(Invalid):
    text = "Fn name must be 255 characters or less"


class FnInvalidName(Invalid):
    text = "name must be a valid string"


class FnMissingAppID(Invalid):
    text = "Missing AppID on Fn"


class FnMissingImage(Invalid):
    text = "Missing image on Fn"


class InvalidMemory(Invalid):
    text = "memory value is out of range. It should be between 0 and 8192"


class InvalidTimeout(Invalid):
    text = "timeout value is out of range, must be between 0 and 300"


class InvalidIdleTimeout(Invalid):
    text = "idle_timeout value is out of range, must be between 0 and 3600"


# -- triggers ----------------------------------------------------------------------------------


class TriggerNotFound(NotFound):
    text = "Trigger not found"


class TriggerExists(Conflict):
    text = "Trigger already exists"


class TriggerSourceExists(Conflict):
    text = "Trigger with the same type and source exists on this app"


class TriggerIDProvided(Invalid):
    text = "ID cannot be provided for Trigger creation"


class TriggerIDMismatch(Invalid):
    text = "ID in path does not match ID in body"


class TriggerMissingName(Invalid):
    text = "Missing name on Trigger"


class TriggerNameTooLong(Invalid):
    text = "Trigger name must be 255 characters or less"


class TriggerInvalidName(Invalid):
    text = "Invalid name for Trigger"


class TriggerMissingAppID(Invalid):
    text = "Missing App ID on Trigger"


class TriggerMissingFnID(Invalid):
    text = "Missing Fn ID on Trigger"


class TriggerFnNotOwned(Invalid):
    text = "Invalid Fn ID - not owned by specified app"


class TriggerMissingSource(Invalid):
    text = "Missing Trigger Source"


class TriggerMissingSourcePrefix(Invalid):
    text = "Missing Trigger Source Prefix '/'"


class TriggerTypeUnknown(Invalid):
    text = "Trigger Type Not Supported"


class TriggerCreatedAtProvided(Invalid):
    text = "Trigger Created At Provided for Create"


class TriggerUpdatedAtProvided(Invalid):
    # The original says "ID" here; its words are kept.
    text = "Trigger ID Provided for Create"


# -- routes ------------------------------------------------------------------------------------


class RouteNotFound(NotFound):
    text = "Route not found"


class RouteExists(Conflict):
    text = "Route already exists"


class RoutePathImmutable(Conflict):
    text = "Could not update - path is immutable"


class RouteMissing(Invalid):
    text = "Missing new route"


class RouteMissingPath(Invalid):
    text = "Missing route Path"


class RouteMissingImage(Invalid):
    text = "Missing route Image"


class RoutePathMalformed(Invalid):
    text = "Path malformed"


class RouteDynamicPath(Invalid):
    text = "Dynamic URL is not allowed"


class RouteInvalidPath(Invalid):
    text = "Invalid route path format"


class RoutePathTooLong(Invalid):
    text = "Route path must be 700 characters or less"


class RouteInvalidType(Invalid):
    text = "Invalid route Type"


class RouteInvalidFormat(Invalid):
    text = "Invalid route Format"


class RouteInvalidTimeout(Invalid):
    text = (
        "timeout value is out of range. Sync should be between 0 and 120, async should be between 0 and 3600"
    )


class RouteInvalidIdleTimeout(Invalid):
    text = "idle_timeout value is out of range. It should be between 0 and 3600"


class InvalidCPUs(Invalid):
    text = (
        "Cpus is invalid. Value should be either between [0.000 and 1024.000] or [0m and 1024000m] "
        "milliCPU units"
    )


# -- calls -------------------------------------------------------------------------------------


class CallNotFound(NotFound):
    text = "Call not found"


class CallLogNotFound(NotFound):
    text = "Call log not found"


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


# -- running functions -------------------------------------------------------------------------


class BodyTooLarge(TooLarge):
    """The announced kind, worded as Fn does."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"Content-Length too large for this server, {length} > max {limit}")


class FunctionResponseError(BadFunction):
    text = "error receiving function response"


class FunctionFailed(BadFunction):
    text = "function failed"


class FunctionInvalidResponse(BadFunction):
    text = "invalid function response"


class FunctionResponseTooLarge(BadFunction):
    text = "function response body too large"


class FunctionHeadersTooLarge(BadFunction):
    text = "function response header too large"


class ContainerInitFailed(BadFunction):
    text = "Container failed to initialize, please ensure you are using the latest fdk and check the logs"


class ContainerInitTimedOut(TimedOut):
    text = "Container initialization timed out, please ensure you are using the latest fdk and check the logs"


class FunctionAnswerInvalid(BadFunction):
    """What a function wrote to stdout is no answer; *kind* is ``http`` or ``json`` (cloudevents too)."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"invalid {kind} response from function err: {reason}")


class FunctionAnswerTooLarge(BadFunction):
    """As the formats over stdin and stdout word it."""

    text = "function response too large"


class EventUnusable(FnError):
    """A body, or an answer, that the cloudevent format cannot carry; *detail* says why.

    Fn blames itself for it (500), and the container stays in use.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail=detail)


class ContainerExited(BadFunction):
    def __init__(self, code: int) -> None:
        super().__init__(f"container exit code {code}")


class ContainerOutOfMemory(BadFunction):
    text = "container out of memory, you may want to raise route.memory for this route (default: 128MB)"


class RequestTooLarge(TooLarge):
    """As ``/r/`` words it."""

    text = "Request content too large"


class InvalidPayload(Invalid):
    text = "Invalid payload"


class CallTimedOut(TimedOut):
    text = "Timed out"


class ImagePullFailed(BadFunction):
    """*code* is the registry's status, 502 when it gave none."""

    def __init__(self, image: str, reason: str, code: int = 502) -> None:
        super().__init__(f"Failed to pull image '{image}': {reason}")
        self._code = code

    @property
    def code(self) -> int:
        return self._code


class ImageHasVolume(Invalid):
    text = "image has Volume definition"


class DoesNotFit(Invalid):
    text = "Requested CPU/Memory cannot be allocated"


class ServerBusy(Unavailable):
    text = "Timed out - server too busy"


class ClientGone(FnError):
    """Of a call that was not run for a client that had gone away; 499 is what proxies note of such."""

    status = 499
    text = "The client hung up before the call got a container"


class EngineUnavailable(Unavailable):
    text = "The container engine does not answer; the node keeps trying to reach it"


# -- between nodes -----------------------------------------------------------------------------


class RunnerNotFound(NotFound):
    text = "Runner not found"


class RunnerRefused(FnError):
    """What a 401 of the API node is to a caller of functions, who has shown no token and needs none."""

    text = "The API node refuses this runner node: FN_RUNNER_TOKEN must be the same on both"


class APINodeUnavailable(Unavailable):
    text = "The API node does not answer; try again"


class QueueUnavailable(Unavailable):
    text = "The message queue does not answer; the call was not accepted"


class StoreUnavailable(Unavailable):
    text = "The database does not answer; try again"


class InvokeOnAPINode(Invalid):
    text = "Invoking routes /r/ is not supported on nodes configured as type API"


class ManageOnRunnerNode(Invalid):
    text = "Invoking api /v1/ requests is not supported on nodes configured as type Runner"
