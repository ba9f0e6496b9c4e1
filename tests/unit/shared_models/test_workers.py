"""Workers of one node: their names and shares, and what they ask each other."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable

import pytest
import uvloop

from shared_models.workers import ALONE, Place, open_siblings


def places(count: int) -> list[Place]:
    return [Place(number, count, secrets.token_hex(4)) for number in range(count)]


def test_the_first_worker_has_the_nodes_name_and_the_others_one_that_no_node_has() -> None:
    assert [place.name("n") for place in (ALONE, *places(2))] == ["n", "n", "n+1"]


@pytest.mark.parametrize(
    ("place", "inherited"),
    [
        (ALONE, {"n+1", "n+2"}),
        (Place(0, 2), {"n+2"}),
        (Place(1, 2), set()),
        (Place(0, 3), set()),
    ],
)
def test_the_first_worker_inherits_from_those_that_are_no_more(place: Place, inherited: set[str]) -> None:
    names = {"n", "n+1", "n+2", "m+2", "n+x", "n+", "+2", "n+1+2"}
    assert {name for name in names if place.inherits(name, "n")} == inherited


def test_shares_are_even_never_nothing_and_no_limit_stays_none() -> None:
    assert [Place(0, 3).share(amount) for amount in (9, 10, 2, 0)] == [3, 3, 1, 0]
    assert ALONE.share(10) == 10


async def _asked() -> None:
    meeting = secrets.token_hex(4)
    one, two, _dead = (Place(number, 3, meeting) for number in range(3))
    async with open_siblings(one) as first, open_siblings(two) as second:
        large = secrets.token_bytes(1 << 20)
        first.answer("name", lambda: b"first")
        second.answer("name", lambda: large)
        second.answer("only", lambda: b"")
        assert await first.ask("name") == [(0, b"first"), (1, large)]
        assert await second.ask("name") == [(0, b"first"), (1, large)]
        assert await first.ask("only") == [(1, b"")]
        assert await first.ask("nothing") == []
    assert await first.ask("name") == [(0, b"first")]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_each_worker_hears_all_that_are_alive(run: Callable[..., None]) -> None:
    run(_asked())


async def test_a_worker_that_fails_to_answer_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    meeting = secrets.token_hex(4)
    one, two = (Place(number, 2, meeting) for number in range(2))

    def fail() -> bytes:
        raise RuntimeError("broken")

    async with open_siblings(one) as first, open_siblings(two) as second:
        first.answer("name", lambda: b"first")
        second.answer("name", fail)
        assert await first.ask("name") == [(0, b"first")]
    assert "broken" in caplog.text


async def test_a_worker_that_stands_still_is_left_out_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_models.workers.PATIENCE", 0.05)
    meeting = secrets.token_hex(4)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"\0fn-hybrid-{meeting}-1")
        silent.listen()
        async with open_siblings(Place(0, 2, meeting)) as first:
            first.answer("name", lambda: b"first")
            assert await first.ask("name") == [(0, b"first")]


async def test_processes_of_other_users_are_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = secrets.token_hex(4)
    async with (
        open_siblings(Place(0, 2, meeting)) as first,
        open_siblings(Place(1, 2, meeting)) as second,
    ):
        second.answer("name", lambda: b"second")
        user = os.geteuid()
        monkeypatch.setattr("os.geteuid", lambda: user + 1)
        assert await first.ask("name") == []
        monkeypatch.undo()
        assert await first.ask("name") == [(1, b"second")]


async def test_a_lone_process_opens_no_socket() -> None:
    async with open_siblings(ALONE) as alone:
        alone.answer("name", lambda: b"me")
        assert await alone.ask("name") == [(0, b"me")]
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as client:
        client.connect("\0fn-hybrid--0")
