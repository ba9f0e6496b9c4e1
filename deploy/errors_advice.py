"""What errors come from and what helps, for docs/errors.md; a leaf without an entry has its kind's."""

# ruff: noqa: E501 -- sentences of a page

from __future__ import annotations

from collections.abc import Mapping

from shared_models import errors
from shared_models.errors import FnError

_LARGER = "A limit of the node: `FN_MAX_REQUEST_SIZE`. Send less, or raise it."
_LEGACY = "What a function of the formats `default`, `json`, `http` or `cloudevent` wrote to stdout. Its log has the rest."
_READ = "The record's `reason` and the call's log say what the function did: `GET /v2/fns/{fn_id}/calls/{call_id}`."

ADVICE: Mapping[type[FnError], str] = {
    # 400
    errors.Invalid: "Others name the rule that the request breaks. The same request again is answered the same:",
    errors.InvalidJSON: "The body is no JSON, or a field has another type. The header `Error-Detail` has the place.",
    errors.DoesNotFit: "The function asks for more memory or CPU than the runner has that was called or, if it is detached, than any has: `Error-Detail` or the message has the numbers. Give it less, or start a larger runner.",
    errors.ImageHasVolume: "The image has a `VOLUME`: functions have no disks. Build it without.",
    errors.InvokeOnAPINode: "Call functions at a runner node or its load balancer (`FN_PUBLIC_LB_URL`).",
    errors.ManageOnRunnerNode: "Manage at an API node.",
    # 401, 403
    errors.Unauthorized: "No token, one that is not known, or one that has expired; the message says which. [security.md](security.md)",
    errors.Forbidden: "A good token whose role may not do this, or not to this app. The message names the role that may.",
    # 404
    errors.AppNotFound: "No app has this id or name, or it was deleted. Runner nodes know changes within five seconds.",
    errors.FnNotFound: "No function has this id, or it was deleted.",
    errors.TriggerNotFound: "No trigger has this id, or none of the app has this path.",
    errors.RouteNotFound: "The app has no route with this path.",
    errors.CallNotFound: "The record is not stored yet (ask again in a second), was removed (`FN_CALLS_RETENTION`), or is another function's.",
    errors.CallLogNotFound: "The call has not ended, or its log was removed (`FN_LOGS_RETENTION`).",
    errors.CallResultNotFound: "The message says why: the call has not ended, had no answer, or its function does not say `fn.hybrid/async/keep-result: true`. [callbacks.md](callbacks.md#keeping-results)",
    errors.CallsNotKept: "Give API nodes a log store, if records are wanted.",
    errors.DeadLetterNotFound: "It was purged, redriven, or has passed `FN_DEAD_LETTERS_RETENTION`.",
    errors.RunnerNotFound: "No runner of this id was seen within a day: `GET /v2/runners`.",
    # 406
    errors.LogNotAcceptable: "Ask for `text/plain` or `application/json` in `Accept`.",
    # 409
    errors.Conflict: "Others say that it exists already, or that what would change cannot:",
    errors.LeaseLost: "Between nodes: a runner was late, and another one has the call. Nothing is to be done for one; for many, look at that runner.",
    errors.CallExists: "Between nodes: the call was sent twice, and is queued once.",
    errors.CallNeverAccepted: "The enqueue of this call failed half way. Send it as a new call.",
    errors.CallEnded: "It is too late to cancel it.",
    # 413
    errors.TooLarge: _LARGER,
    errors.BodyTooLarge: _LARGER,
    errors.RequestTooLarge: _LARGER,
    # 429
    errors.QueueFull: "Calls of this function come faster than they end. Add runners, or raise `fn.hybrid/async/max-queued`.",
    errors.RateLimited: "The app's rate on this runner: `fn.hybrid/rate-limit/per-second`, `FN_APP_RATE_LIMIT`.",
    # 499, 500
    errors.ClientGone: "Nobody reads it; it is in records, and in the log.",
    errors.EventUnusable: "A body that the `cloudevent` format cannot carry. The log says why.",
    errors.RunnerRefused: "`FN_RUNNER_TOKEN` of the runner node is not one of the API node's; with `FN_RUNNER_AUTH=mtls`, its certificate is not good.",
    # 502
    errors.FunctionFailed: _READ,
    errors.FunctionResponseError: f"The function ended, or closed the connection, before it had answered. {_READ}",
    errors.FunctionInvalidResponse: "What the function wrote to its socket is no HTTP answer. Use one of Fn's development kits.",
    errors.FunctionResponseTooLarge: "Larger than `FN_MAX_RESPONSE_SIZE`.",
    errors.FunctionHeadersTooLarge: "Larger than `FN_MAX_HDR_RESPONSE_SIZE`.",
    errors.FunctionAnswerInvalid: _LEGACY,
    errors.FunctionAnswerTooLarge: "Larger than `FN_MAX_RESPONSE_SIZE`.",
    errors.ContainerInitFailed: "The container ended before it opened its socket. Its log says why: a wrong entry point, or a missing library.",
    errors.ContainerExited: "The container ended in the middle of the call. " + _READ,
    errors.ContainerOutOfMemory: "Raise the function's `memory`, or let it use less.",
    errors.ImagePullFailed: "The name is wrong, the registry is away, or it wants a login (`FN_DOCKER_CONFIG`). The message has the engine's words. The status is the registry's where it gave one.",
    errors.SecretMissing: "Put the file `APP/NAME` below `FN_SECRETS_PATH` of every runner node.",
    # 503
    errors.ServerBusy: "No container was free in time (`FN_SLOT_WAIT_SECS`), or too many calls wait (`FN_MAX_WAITING_CALLS`). Repeat after `Retry-After`; add runners if it stays.",
    errors.EngineUnavailable: "Look at the container engine of that runner; `/readyz` says the same.",
    errors.RunnerStopped: "The runner was stopped, and the call did not end within its drain. Repeat it, if it may run twice.",
    errors.APINodeUnavailable: "The runner node reaches no API node and does not know the function yet. Repeat; look at `FN_RUNNER_API_URL`.",
    errors.APINodeUntrusted: "The runner's log says which certificate, and why: [security.md](security.md#tls).",
    errors.IssuerUnavailable: "The node cannot get the keys of `FN_OIDC_ISSUER`. Its log has the address and the cause.",
    errors.QueueUnavailable: "Send the call again, with the same `Fn-Idempotency-Key` if it must not run twice. `fn-node doctor api` looks at the queue.",
    errors.StoreUnavailable: "Repeat after `Retry-After`. `/readyz` of the API nodes names the store.",
    # 504
    errors.CallTimedOut: "The function took longer than its `timeout`. Raise it, 300 s at most.",
    errors.ContainerInitTimedOut: "The container opened no socket within `FN_HOT_START_TIMEOUT_MSECS`: give it more memory or CPU, or raise that.",
}  # fmt: skip
