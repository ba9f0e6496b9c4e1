from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from services.callbacks.resolver import AddressRefused, GuardedResolver, ThreadLookUp
from services.callbacks.settings import CallbackSettings


def resolving(*addresses: str, allow: tuple[str, ...] = ()) -> GuardedResolver:
    async def look_up(host: str, port: int) -> list[str]:
        return list(addresses)

    return GuardedResolver(CallbackSettings(allow=allow), look_up)


async def test_only_public_addresses_of_a_name_are_connected_to() -> None:
    found = await resolving("10.0.0.1", "8.8.8.8", "::1", "2606:4700::1").resolve("example.com", 443)
    assert [(one["host"], one["port"], one["family"]) for one in found] == [
        ("8.8.8.8", 443, socket.AF_INET),
        ("2606:4700::1", 443, socket.AF_INET6),
    ]


async def test_a_name_that_leads_within_our_network_is_refused() -> None:
    with pytest.raises(AddressRefused):
        await resolving("10.0.0.1", "fd00::1").resolve("inside.example.com", 80)


async def test_a_name_that_is_allowed_leads_where_it_leads() -> None:
    found = await resolving("10.0.0.1", allow=("inside.example.com",)).resolve("inside.example.com", 80)
    assert [one["host"] for one in found] == ["10.0.0.1"]


@pytest.mark.parametrize("host", ["localhost", "0x7f.1", "0x7f000001"])
async def test_the_system_is_asked_and_its_answer_is_judged(host: str) -> None:
    # Whether it takes such a notation for an address is the system's affair; what comes of it is ours.
    with pytest.raises(OSError, match=r"not public|not known|associated|resolution"):
        await GuardedResolver(CallbackSettings(), ThreadLookUp(2)).resolve(host, 80)


async def test_a_name_that_there_is_not_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError):  # noqa: PT011 - its words are those of the system
        await ThreadLookUp(2)("no-such-host.invalid", 80)


async def test_a_name_that_cannot_be_one_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError):  # noqa: PT011
        await ThreadLookUp(2)("a" * 64 + ".example.com", 80)


async def test_look_ups_that_hang_are_bounded_and_others_go_on_when_they_end() -> None:
    go_on = threading.Event()
    begun: list[str] = []

    def slow(host: str, port: int) -> list[str]:
        begun.append(host)
        if host != "quick":
            go_on.wait(30)
        return ["8.8.8.8"]

    look_up = ThreadLookUp(2, slow)
    abandoned = [asyncio.create_task(look_up(f"slow{number}", 80)) for number in range(2)]
    while len(begun) < 2:
        await asyncio.sleep(0.001)
    for one in abandoned:
        one.cancel()
    await asyncio.wait(abandoned)
    quick = asyncio.create_task(look_up("quick", 80))
    await asyncio.sleep(0)
    assert begun == ["slow0", "slow1"]
    go_on.set()
    async with asyncio.timeout(60):
        assert await quick == ["8.8.8.8"]
