"""How long the stores take, verb by verb, for the metrics of an API node."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services import metrics
from services.stores import Stores
from shared_models.interfaces import Datastore, LogStore, MessageQueue

T = TypeVar("T")

_WAITING = frozenset({"reserve"})
"""Verbs that wait for what is not there yet: that would be no time of the store's."""


def timed(stores: Stores) -> Stores:
    """*stores*, whose verbs are timed from now on, those that fail included."""
    for store, contract, name in (
        (stores.datastore, Datastore, "datastore"),
        (stores.logstore, LogStore, "logstore"),
        (stores.queue, MessageQueue, "queue"),
    ):
        for verb in contract.__abstractmethods__ - _WAITING:
            does = getattr(store, verb)
            if inspect.iscoroutinefunction(does):
                setattr(store, verb, _timing(does, name, verb))
    return stores


def _timing(does: Callable[..., Awaitable[T]], store: str, verb: str) -> Callable[..., Awaitable[T]]:
    observe = metrics.store_seconds.labels(store, verb).observe

    async def timing(*arguments: object, **named: object) -> T:
        began = time.perf_counter()
        try:
            return await does(*arguments, **named)
        finally:
            observe(time.perf_counter() - began)

    return timing
