"""Whether one more container is worth its start: a pure function of numbers."""

from __future__ import annotations

import math

import msgspec

SERVICE_GUESS = 1.0
"""Seconds that a call is thought to take before one has ended."""
SOONEST, LATEST = 1.0, 60.0
"""Seconds that ``retry_after`` answers at least and at most."""
LATE = 2.0
"""Times what a start takes, after which those who have nothing else to hope for get another one."""
WORTH = 2.0
"""Times what a start takes that calls wait, together, before one more container is worth having."""
SHORTEST = 0.001
"""Seconds until the next look, at least."""


class Demand(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the decision looks at. Times in seconds."""

    waiting: int
    starting: int
    containers: int
    service_time: float | None
    """Of a call where containers are not in each other's way; None before one has ended."""
    start_time: float
    oldest_wait: float = 0.0
    """Of the first caller for whom no container is starting, not counting the time before there was any."""
    stuck: float = 0.0
    """Since a waiting caller got a container for the last time."""
    debt: float = 0.0
    """What calls have waited, together, beyond what is well; see ``Pace``."""
    limit: float = math.inf
    """Containers beyond which more are not known to serve more calls; see ``Trial``."""


def wants_container(demand: Demand) -> bool:
    """Whether starting one more container beats waiting for those at work.

    Containers that are starting count as capacity. A caller who has waited as long as a start takes, while
    nobody was served, gets one regardless. Else, up to the limit, one more is worth its start when the last
    in line would wait longer than that for those at work (``waiting * service_time / containers``), when the
    first already has, or when many have waited a little, again and again.
    """
    unserved = demand.waiting - demand.starting
    have = demand.containers + demand.starting
    if unserved <= 0:
        return False
    if not have:
        return True
    if demand.containers and min(demand.oldest_wait, demand.stuck) >= demand.start_time:
        return True
    if have >= demand.limit:
        return False
    if demand.oldest_wait >= _patience(demand) or demand.debt >= WORTH * demand.start_time:
        return True
    return unserved * _service(demand) > demand.start_time * _servers(demand)


def next_look(demand: Demand) -> float | None:
    """Seconds after which ``wants_container`` may change its answer by the mere passing of time."""
    unserved = demand.waiting - demand.starting
    if unserved <= 0:
        return None
    pause = math.inf
    if demand.containers:
        pause = demand.start_time - min(demand.oldest_wait, demand.stuck)
    if demand.containers + demand.starting < demand.limit:
        pause = min(pause, _patience(demand) - demand.oldest_wait)
        if demand.service_time is None and demand.containers:
            pause = min(pause, demand.start_time * _servers(demand) / unserved - demand.stuck)
    return None if pause == math.inf else max(pause, SHORTEST)


def retry_after(demand: Demand) -> float:
    """Seconds after which a call that is refused now has a chance: once those ahead of it are served."""
    service = SERVICE_GUESS if demand.service_time is None else demand.service_time
    ahead = demand.waiting * service / max(demand.containers + demand.starting, 1)
    return min(max(ahead + (0.0 if demand.containers else demand.start_time), SOONEST), LATEST)


def _service(demand: Demand) -> float:
    """Before a call has ended: as long as the first has run, for it takes that long at least."""
    if demand.service_time is not None:
        return demand.service_time
    return demand.stuck if demand.containers else 0.0


def _servers(demand: Demand) -> int:
    """Who works off the line. One that is starting will serve many calls that are shorter than its start; of
    longer ones it serves one, which does not count as waiting any more."""
    if demand.containers and _service(demand) >= demand.start_time:
        return demand.containers
    return demand.containers + demand.starting


def _patience(demand: Demand) -> float:
    return demand.start_time * (1.0 if demand.containers else LATE)
