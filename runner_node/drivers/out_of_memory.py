"""Whether the container of an engine that says no more than "killed" was killed for its memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from docker.errors import APIError

from runner_node.drivers.engine import Engine
from shared_models import errors

log = logging.getLogger(__name__)

KILLED = 128 + 9
LATE = 0.5
"""Seconds for which the engine's event is waited for. On machines with ten times the work that they can do
it came a fifth of a second behind the end."""


async def event_of(engine: Engine, found: Mapping[str, Any]) -> bool:
    """Whether the engine has told, or tells soon, that the memory of a killed container ran out.

    *found* is what it says of the container. Engines hear of the end and of the memory on two ways, and what
    they have not heard of before the end they never say of the container, but as an event only.
    """
    try:
        since = int(datetime.fromisoformat(found["State"]["StartedAt"]).timestamp())
        return await engine.tells(found["Id"], "oom", since, LATE)
    except (APIError, errors.EngineUnavailable, KeyError, ValueError) as exc:
        log.debug("cannot see whether %s ran out of memory: %s", found.get("Name", ""), exc)
        return False
