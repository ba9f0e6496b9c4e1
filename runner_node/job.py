"""What the agent is given to run."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec

from runner_node.calls import Target
from runner_node.function_socket import Body
from runner_node.protocols.contract import StdioCall
from runner_node.protocols.http_stream import Header
from runner_node.results import Stored
from runner_node.sinks import Sink
from runner_node.slots import Left
from shared_models import times
from shared_models.call import Call, CallType

Before = Callable[["Job"], Awaitable[None]]


class Job(msgspec.Struct, kw_only=True):
    """One call to run. *before* is awaited once a container is there, before the function sees anything.

    *patience* in seconds: how long to wait for a container. *age* in seconds: how long it was queued. *token*
    is that of the call's lease, *stored* is told whether its result was taken.
    *started* (unix seconds) is set when the function gets the call, or by *before*, when that has told
    somebody a time. *begun*: nothing need happen before the function gets it.
    *recorded*: its end is on its way into a record. *cut*: when it is cancelled, the runner's stop is why.
    *left* says whether nobody would read the answer any more; once it does, the call is not begun.
    *sink* gets an answer that is large, or comes slowly, piece by piece; what is returned then has no body.
    """

    call: Call
    target: Target
    headers: list[Header]
    body: Body
    sync: bool
    patience: float
    started: float = 0.0
    token: str = ""
    age: float = 0.0
    before: Before | None = None
    stored: Stored | None = None
    begun: bool = False
    recorded: bool = False
    cut: bool = False
    left: Left | None = None
    sink: Sink | None = None


def route_job(call: Call, target: Target, headers: list[Header], body: Body) -> Job:
    """A job that runs a route's call; a cold one gets a container, and an environment, of its own.

    Only http-stream takes a *body* in pieces.
    """
    sync = call.type == CallType.SYNC
    if target.cold and isinstance(body, bytes):
        said = StdioCall(
            id=call.id, deadline=times.to_text(time.time() + target.timeout), method=call.method,
            url=call.url, headers=headers, content_type="", body=body,
        )  # fmt: skip
        target = target.alone(said)
        call = msgspec.structs.replace(call, config={**target.env, **target.said})
    return Job(call=call, target=target, headers=headers, body=body, sync=sync, patience=target.timeout)
