"""What the largest runner has: a call that fits into none is refused before it is accepted."""

from __future__ import annotations

import asyncio

from shared_models.config import milli_cpus
from shared_models.errors import DoesNotFit
from shared_models.interfaces import Datastore

FRESH = 5.0
"""Seconds for which the list of runners is believed."""
_MIB = 1 << 20


class Capacity:
    """Judges by all runners that were seen within a day: a pool that is scaled to zero comes back."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._largest: list[tuple[int, int]] = []
        self._until = 0.0

    async def refuse_if_too_large(self, memory: int, cpus: str) -> None:
        """Raises DoesNotFit, which names what is needed (*memory* in MB, *cpus* as on the wire) and what is.

        Where no runner was ever seen there is nothing to judge by.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            reports = [runner.report for runner in await self._datastore.runners()]
            self._largest = [
                (one.capacity_memory // max(one.workers, 1), one.capacity_cpus // max(one.workers, 1))
                for one in reports
            ]
            self._until = now + FRESH
        needed = (memory * _MIB, milli_cpus(cpus))
        if not self._largest or any(has[0] >= needed[0] and has[1] >= needed[1] for has in self._largest):
            return
        most = max(self._largest)
        raise DoesNotFit(
            f"{DoesNotFit.text}: the call needs {_amount(*needed)}, the largest runner has {_amount(*most)}"
        )


def _amount(memory: int, cpus: int) -> str:
    amount = f"{memory // _MIB} MB"
    return f"{amount} and {cpus} mCPU" if cpus else amount
