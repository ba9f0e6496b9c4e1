"""Whether the receiver of traces and metrics takes reports: ``fn-node doctor``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp

from shared_models.finding import Finding, Level
from shared_models.otlp_settings import OTLPSettings

_ABOUT = "receiver of traces (FN_OTLP_URL)"
_LIMIT = 10.0


async def examine_otlp(settings: OTLPSettings) -> AsyncIterator[Finding]:
    """Sends a report of no traces, with the headers of the node's; nothing where none are sent."""
    if not settings.url:
        return
    headers = {**dict(settings.headers), "Content-Type": "application/x-protobuf"}
    timeout = aiohttp.ClientTimeout(_LIMIT)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            # No bytes are a report without traces, in protobuf.
            session.post(f"{settings.url}/v1/traces", data=b"", headers=headers) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
        says = f"{settings.url} does not answer: {str(exc) or f'not within {_LIMIT:g} s'}"
        yield Finding(Level.WARNING, _ABOUT, says, "start it, or correct FN_OTLP_URL; until then all is lost")
        return
    if status < 300:
        yield Finding(Level.OK, _ABOUT, f"{settings.url} takes reports")
        return
    wrong = "FN_OTLP_HEADERS" if status in (401, 403) else "FN_OTLP_URL"
    yield Finding(
        Level.WARNING,
        _ABOUT,
        f"{settings.url}/v1/traces answers {status}",
        f"correct {wrong}; all is lost so",
    )
