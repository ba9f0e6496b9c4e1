"""What goes wrong when a function runs."""

from __future__ import annotations

from shared_models.errors.kinds import (
    BadFunction,
    FnError,
    Invalid,
    TimedOut,
    TooLarge,
    TooMany,
    Unavailable,
)


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


class RateLimited(TooMany):
    """More calls of an app than this runner node takes; *per_second* and *burst* are those of the node."""

    def __init__(self, app_name: str, per_second: float, burst: float, retry_after: float) -> None:
        super().__init__(
            f"App {app_name} is called too often: this runner node takes {per_second:g} calls a second and "
            f"{burst:g} at once; try again in {retry_after:.1f} s",
            retry_after=retry_after,
        )


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


class SecretMissing(BadFunction):
    """The runner's log says where it was looked for."""

    def __init__(self, key: str, app: str, name: str) -> None:
        super().__init__(
            f"config {key} of app {app}: this runner has no secret {name!r}: put it there, or correct config"
        )


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


class RunnerStopped(Unavailable):
    """A run that was cut off because the runner stops."""

    text = "The runner stopped before the function had answered"
