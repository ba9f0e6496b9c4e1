"""What the agent is given to run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from runner_node.calls import Target
from runner_node.function_socket import Body
from runner_node.protocols.http_stream import Header
from runner_node.recorder import Stored
from shared_models.call import Call

Before = Callable[[], Awaitable[None]]


class Job(msgspec.Struct, kw_only=True):
    """One call to run. *before* is awaited once a container is there, before the function sees anything.

    *patience* in seconds: how long to wait for a container. *token* is that of the call's lease, *stored*
    is told whether its result was taken.
    """

    call: Call
    target: Target
    headers: list[Header]
    body: Body
    sync: bool
    patience: float
    token: str = ""
    before: Before | None = None
    stored: Stored | None = None
