"""``fn-node doctor``: looks at what a node with these settings stands on, and says what to do about it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

from deploy import exposure, runners, shares, tls
from deploy.settings import APINode, FullNode, RunnerNode, Settings, redact
from shared_models.finding import Finding, Level
from shared_models.otlp_checkup import examine_otlp

_MARK = {Level.OK: "ok      ", Level.WARNING: "warning ", Level.ERROR: "ERROR   "}


def run(settings: Settings, warnings: Sequence[str]) -> int:
    """Prints every finding; answers 1 when one is an error."""
    return asyncio.run(_run(settings, warnings))


async def _run(settings: Settings, warnings: Sequence[str]) -> int:
    worst = 0
    for warning in warnings:
        print(f"{_MARK[Level.WARNING]}settings: {redact(warning)}")
    async for finding in _examine(settings):
        worst |= finding.level is Level.ERROR
        print(f"{_MARK[finding.level]}{finding.about}: {redact(finding.says)}", flush=True)
        if finding.advice:
            print(f"        -> {finding.advice}", flush=True)
    return int(worst)


async def _examine(settings: Settings) -> AsyncIterator[Finding]:
    for finding in shares.examine(settings):
        yield finding
    for finding in tls.examine(settings.tls):
        yield finding
    for finding in exposure.examine(settings.http):
        yield finding
    async for finding in examine_otlp(settings.otlp):
        yield finding
    if settings.identity.tokens_path or settings.identity.issuer:
        from services.identity.checkup import examine_identity

        async for finding in examine_identity(settings.identity):
            yield finding
    # Imported only now: an image of one node type has no libraries of another.
    if isinstance(settings, APINode | FullNode):
        from services.checkup import examine_stores

        async for finding in examine_stores(settings.stores):
            yield finding
    if isinstance(settings, RunnerNode):
        async for finding in _examine_api_nodes(settings):
            yield finding
    if isinstance(settings, RunnerNode | FullNode):
        from runner_node.checkup import examine_runner

        for finding in runners.examine(settings.http, settings.agent):
            yield finding
        # Not the node's own name: what is left of that name is removed when its driver is opened.
        async for finding in examine_runner(settings.agent, settings.driver, f"doctor-{os.getpid()}"):
            yield finding


async def _examine_api_nodes(settings: RunnerNode) -> AsyncIterator[Finding]:
    from hybrid_client.checkup import examine_api_nodes
    from shared_models.certificates import BadTLSFile
    from shared_models.tls import TLS

    try:
        context = TLS(settings.tls).client()
    except BadTLSFile:
        return  # it has been said
    async for finding in examine_api_nodes(settings.client, context):
        yield finding
