"""Leases that were given a moment ago."""

from __future__ import annotations

from services.fresh_leases import FreshLeases
from shared_models.call import Call, Lease, LeasedCall, LeaseKey
from shared_models.ids import new_id

TTL = 1000.0
"""Seconds: a tenth of it is longer than any of these tests takes."""


def leased() -> LeasedCall:
    return LeasedCall(call=Call(id=new_id()), lease=Lease(token="t"))


async def test_a_lease_is_fresh_for_a_tenth_of_its_time() -> None:
    now = [5000.0]
    fresh, one = FreshLeases(TTL, lambda: now[0]), leased()
    fresh.given([one])
    assert one.key in fresh
    assert LeaseKey(one.call.id, "forged") not in fresh
    now[0] += 99.0
    assert one.key in fresh
    now[0] += 2.0
    assert one.key not in fresh


async def test_a_clock_that_was_set_back_makes_none_fresh() -> None:
    now = [5000.0]
    fresh, one = FreshLeases(TTL, lambda: now[0]), leased()
    fresh.given([one])
    now[0] -= 1.0
    assert one.key not in fresh


async def test_those_that_are_not_fresh_any_more_are_forgotten() -> None:
    now = [5000.0]
    fresh, old, new = FreshLeases(TTL, lambda: now[0]), leased(), leased()
    fresh.given([old])
    now[0] += 200.0
    fresh.given([new])
    now[0] -= 200.0
    assert old.key not in fresh


async def test_a_call_that_came_without_a_lease_is_none() -> None:
    fresh, bare = FreshLeases(TTL, lambda: 5000.0), LeasedCall(call=Call(id=new_id()))
    fresh.given([bare])
    assert bare.key not in fresh
