"""Whether the API nodes answer a runner, and take it for one: ``fn-node doctor``."""

from __future__ import annotations

import dataclasses
import ssl
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

from hybrid_client.client import HTTPDataAccess
from hybrid_client.settings import ClientSettings
from hybrid_client.transport import Transport, new_session
from shared_models import errors
from shared_models.finding import Finding, Level

_NOBODY = "01AAAAAAAAAAAAAAAAAAAAAAAA"
_MOST_SKEW = 30.0
"""Seconds between two clocks that are worth a word: deadlines and times of records are by both."""


async def examine_api_nodes(
    settings: ClientSettings, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Finding]:
    """Asks each address for itself."""
    async with new_session(settings, tls) as session:
        for url in settings.api_urls:
            about = f"API node {url} (FN_RUNNER_API_URL)"
            alone = dataclasses.replace(settings, api_urls=(url,), max_attempts=1)
            transport = Transport(session, alone)
            try:
                await HTTPDataAccess(transport).fn(_NOBODY)
            except errors.FnNotFound:
                yield Finding(Level.OK, about, "answers, and takes this node for a runner")
                yield await _clock(transport, about)
            except errors.RunnerRefused as exc:
                certificate = "certificate" in exc.message
                advice = (
                    "FN_NODE_CERT and FN_NODE_CERT_KEY"
                    if certificate
                    else "FN_RUNNER_TOKEN to the API node's"
                )
                yield Finding(Level.ERROR, about, exc.message, f"set {advice}")
            except errors.APINodeUntrusted as exc:
                yield Finding(Level.ERROR, about, exc.message, exc.detail)
            except errors.FnError as exc:
                yield Finding(Level.ERROR, about, exc.explained, "start it, or correct FN_RUNNER_API_URL")


async def _clock(transport: Transport, about: str) -> Finding:
    before = time.time()
    try:
        answer = await transport.send("GET", "/version")
        its = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except (errors.FnError, ValueError):
        return Finding(Level.WARNING, f"clock of {about}", "is unknown: it says no date")
    # Its time is in whole seconds.
    skew = its + 0.5 - (before + time.time()) / 2
    if abs(skew) > _MOST_SKEW:
        return Finding(
            Level.WARNING, f"clock of {about}", f"is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}: "
            "times in records and deadlines of calls are wrong by as much", "run NTP on both machines",
        )  # fmt: skip
    return Finding(Level.OK, f"clock of {about}", "agrees with this machine's")
