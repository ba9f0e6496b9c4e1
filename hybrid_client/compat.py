"""What an unmodified Fn 0.3.484 API node understands: no leases, one call at a time, text only.

Source: api/agent/hybrid/client.go and api/server/hybrid.go of Fn 0.3.484.
"""

from __future__ import annotations

import msgspec

from hybrid_client.answers import Answer
from hybrid_client.transport import Transport
from shared_models import errors, wire
from shared_models.call import Call, Finished, Status

_POLL = 30.0


async def enqueue(transport: Transport, call: Call) -> None:
    """Queues *call*; raises Invalid when its payload is not text, which that node would mangle."""
    if "payload_base64" in (body := _wire(call)):
        raise errors.Invalid("The API node takes payloads of UTF-8 text only")
    if call.callback_url or call.idempotency_key:
        raise errors.Invalid("The API node knows neither Fn-Callback-Url nor Fn-Idempotency-Key")
    answer = await transport.send("PUT", "/v1/runner/async", body=wire.encode(body))
    if answer.status >= 400:
        raise answer.error()


async def dequeue(transport: Transport) -> Answer:
    """At most one call, as that node hands it out; it waits 30 seconds for one."""
    return await transport.send("GET", "/v1/runner/async", wait=_POLL, repeat=False)


async def start(transport: Transport, call: Call) -> None:
    """Says that *call* runs now; raises LeaseLost when that node has no reservation for it.

    The node answers 500 then, as it does for its own troubles: the call comes back in both cases.
    """
    running = msgspec.structs.replace(call, status="running")
    try:
        answer = await transport.send("POST", "/v1/runner/start", body=wire.encode(_wire(running)))
    except errors.APINodeUnavailable as exc:
        if exc.detail.startswith("status 500"):
            raise errors.LeaseLost(detail=exc.detail) from None
        raise
    if answer.status == 409:
        raise errors.LeaseLost
    if answer.status >= 400:
        raise answer.error()


async def finish(transport: Transport, one: Finished) -> Answer:
    """Hands in one result."""
    body = {"call": _wire(one.call), "log": one.log.decode("utf-8", "replace")}
    return await transport.send("POST", "/v1/runner/finish", body=wire.encode(body))


def _wire(call: Call) -> dict[str, object]:
    # Attempt, node and reason are words of ours, and so is the error of a timeout: Fn's has none.
    error = "" if call.status == Status.TIMEOUT else call.error
    return msgspec.structs.replace(
        call, attempt=0, node="", error=error, reason="", callback_url="", idempotency_key=""
    ).wire()
