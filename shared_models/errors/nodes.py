"""What goes wrong between nodes, and with what they stand on."""

from __future__ import annotations

from shared_models.errors.kinds import FnError, Invalid, NotFound, Unavailable


class RunnerNotFound(NotFound):
    text = "Runner not found: none of this id was seen within a day"


class RunnerRefused(FnError):
    """What a 401 of the API node is to a caller of functions, who has shown no token and needs none."""

    text = "The API node refuses this runner node: FN_RUNNER_TOKEN must be the same on both"


class APINodeUnavailable(Unavailable):
    text = "The API node does not answer; try again"


class APINodeUntrusted(APINodeUnavailable):
    """Over TLS, one of the two refuses the other; the detail says which, and why."""

    text = "The API node and this runner node do not trust each other"


class IssuerUnavailable(Unavailable):
    text = "The issuer of tokens does not answer; try again"


class QueueUnavailable(Unavailable):
    text = "The message queue does not answer; the call was not accepted"


class StoreUnavailable(Unavailable):
    text = "The database does not answer; try again"


class InvokeOnAPINode(Invalid):
    text = "Invoking routes /r/ is not supported on nodes configured as type API"


class ManageOnRunnerNode(Invalid):
    text = "Invoking api /v1/ requests is not supported on nodes configured as type Runner"
