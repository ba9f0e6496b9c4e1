"""Samples of what a container uses while it runs a call, thinned to what a record may hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from shared_models import times
from shared_models.call import Stat

PERIOD = 1.0
"""Seconds between two samples."""
MOST = 240
"""Points in one record."""


class Sampled(Protocol):
    """A container at work."""

    async def sample(self) -> None: ...


async def sample_for_ever(busy: Callable[[], Iterable[Sampled]]) -> None:
    """Samples all containers at work once a second, beside the calls."""
    while True:
        await asyncio.sleep(PERIOD)
        await asyncio.gather(*(container.sample() for container in busy()), return_exceptions=True)


def decimated(samples: list[Stat], most: int = MOST) -> list[Stat]:
    """*samples*, or the means of at most *most* equally long stretches of time when there are more.

    Times and metrics are rounded down. Examples recorded from Fn: vectors/decimate.json of the wire tests.
    """
    if len(samples) <= most:
        return samples
    moments = [_nanoseconds(sample) for sample in samples]
    first, span = moments[0], moments[-1] - moments[0]
    stretches: list[list[int]] = [[] for _ in range(most)]
    for number, moment in enumerate(moments):
        # A sample on the border belongs to the earlier stretch.
        at = -(-(moment - first) * most // span) - 1 if span else 0
        stretches[min(max(at, 0), most - 1)].append(number)
    return [_mean([samples[i] for i in one], [moments[i] for i in one]) for one in stretches if one]


def _nanoseconds(sample: Stat) -> int:
    return round(times.seconds_of(sample.timestamp) * 1000) * 1_000_000


def _mean(samples: list[Stat], moments: list[int]) -> Stat:
    count = len(samples)
    names = sorted({name for sample in samples for name in sample.metrics})
    moment = sum(moment // count for moment in moments)
    return Stat(
        timestamp=times.to_text(moment // 1_000_000 / 1000 + 0.0001),
        metrics={name: sum(sample.metrics.get(name, 0) for sample in samples) // count for name in names},
    )
