"""What a node reports to others: traces and metrics, where ``FN_OTLP_URL`` says to whom."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.settings import Settings, node_id
from shared_models.workers import Place


@asynccontextmanager
async def reporting(settings: Settings, place: Place) -> AsyncIterator[None]:
    """Reports of this process until the end of the block; the libraries for it are imported only then."""
    if not settings.otlp.url:
        yield
        return
    from shared_models.otlp import open_otlp

    name = node_id(settings.node, settings.http.port, os.getpid())
    about = {
        "service.name": f"fn-{settings.node.type}",
        "service.namespace": "fn-hybrid",
        "service.instance.id": place.name(name),
        "service.version": importlib.metadata.version("fn-hybrid"),
    }
    async with open_otlp(settings.otlp, about):
        yield
