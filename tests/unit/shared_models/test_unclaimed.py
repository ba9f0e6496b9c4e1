"""Leases whose asker is gone: they go back, and nobody waits for them for ever."""

import asyncio

import pytest

from shared_models import unclaimed
from shared_models.call import Call, Lease, LeasedCall
from shared_models.errors import QueueUnavailable
from shared_models.unclaimed import Unclaimed

CALL = LeasedCall(call=Call(id="call"), lease=Lease(token="token"))


class Lender:
    """Leases a call when it is told to; *broken*: what giving back raises."""

    def __init__(self, broken=None):
        self.may = asyncio.Event()
        self.cancelled = False
        self.released = []
        self._broken = broken

    async def lease(self):
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return [CALL]

    async def release(self, keys):
        if self._broken:
            raise self._broken
        self.released += keys

    async def hangs(self, keys):
        await asyncio.Event().wait()


async def given_up(unclaimed, lender):
    asked = asyncio.create_task(unclaimed.leased(lender.lease()))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait({asked})
    assert asked.cancelled()


async def settled(unclaimed):
    async with asyncio.timeout(30):
        await unclaimed.settle()


async def test_who_still_waits_gets_what_was_leased():
    lender = Lender()
    lender.may.set()
    assert await Unclaimed(lender.release).leased(lender.lease()) == [CALL]
    assert lender.released == []


async def test_what_comes_for_nobody_goes_back():
    lender = Lender()
    asked = Unclaimed(lender.release)
    await given_up(asked, lender)
    lender.may.set()
    await settled(asked)
    assert lender.released == [CALL.key]


async def test_a_request_that_takes_too_long_is_dropped():
    lender = Lender()
    asked = Unclaimed(lender.release, patience=0.01)
    await given_up(asked, lender)
    await settled(asked)
    assert (lender.cancelled, lender.released) == (True, [])


@pytest.mark.parametrize("broken", [QueueUnavailable(), None], ids=["refused", "hung"])
async def test_what_cannot_go_back_is_not_waited_for(monkeypatch, broken):
    monkeypatch.setattr(unclaimed, "RELEASE", 0.01)
    lender = Lender(broken)
    asked = Unclaimed(lender.release if broken else lender.hangs)
    await given_up(asked, lender)
    lender.may.set()
    await settled(asked)
    assert lender.released == []
