"""Where callbacks lead, and where they do not, on real connections."""

from __future__ import annotations

import asyncio
import getpass
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from services.callbacks.delivery import running_callbacks
from services.stores import Stores
from tests.integration.receivers import Counted, a_callback, emptied, leading, quick, receiving, stores_in
from tests.servers.certificates import certificate


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with stores_in(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "inside.example", "[::ffff:127.0.0.1]"])
async def test_addresses_within_our_network_are_not_called_unless_they_are_allowed(
    stores: Stores, host: str
) -> None:
    names = leading({"localhost": ["127.0.0.1"], "inside.example": ["127.0.0.1"]})
    counted = Counted()
    async with receiving() as receiver:
        url = receiver.url(host=host)
        async with running_callbacks(stores, quick(allow=(), max_pause=0.01), look_up=names):
            await stores.outbox.put([a_callback(url)])
            await emptied(stores)
        assert receiver.requests == []
        assert counted.grown() == {"delivered": 0, "failed_attempts": 8, "given_up": 1}
        async with running_callbacks(stores, quick(allow=("127.0.0.0/8",)), look_up=names):
            await stores.outbox.put([a_callback(url)])
            await receiver.has(1)


async def test_a_host_that_is_allowed_by_name_is_called_wherever_it_is(stores: Stores) -> None:
    names = leading({"hooks.internal": ["127.0.0.1"]})
    settings = quick(allow=("hooks.internal",))
    async with receiving() as receiver, running_callbacks(stores, settings, look_up=names):
        await stores.outbox.put([a_callback(receiver.url(host="hooks.internal"))])
        [arrived] = await receiver.has(1)
        await emptied(stores)
    assert arrived.headers["Host"] == f"hooks.internal:{receiver.port}"


async def test_a_name_that_comes_to_lead_within_our_network_is_refused_then(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answers = iter([["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1", "10.0.0.1"]])
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers, ["127.0.0.1"])

    # Nobody listens at the address that is allowed.
    settings = quick(allow=("127.0.0.2/32",), max_pause=0.01)
    async with receiving() as receiver, running_callbacks(stores, settings, look_up=rebinding):
        await stores.outbox.put([a_callback(receiver.url(host="rebinding.example"))])
        await emptied(stores)
    assert receiver.requests == []
    assert len(asked) == 8, "a name is resolved once for each try"
    assert "(tries: 1): ClientConnectorError" in caplog.text
    assert "(tries: 2): its address is refused: its addresses are not public" in caplog.text


async def test_only_the_address_that_is_permitted_is_connected_to(stores: Stores) -> None:
    names = leading({"both.example": ["127.0.0.1", "127.0.0.2"]})
    settings = quick(allow=("127.0.0.2/32",), max_age=0.0)
    async with receiving() as receiver, running_callbacks(stores, settings, look_up=names):
        await stores.outbox.put([a_callback(receiver.url(host="both.example"))])
        await emptied(stores)
    assert receiver.requests == []


async def test_no_proxy_of_the_environment_is_used(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        monkeypatch.delenv("no_proxy", raising=False)
        async with running_callbacks(stores, quick()):
            await stores.outbox.put([a_callback(receiver.url())])
            await receiver.has(1)
        assert proxy.requests == []


async def test_receivers_with_tls_are_called_when_their_certificate_is_trusted_and_theirs(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    names = leading({"hooks.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    settings = quick(max_age=0.0)
    with certificate(getpass.getuser(), "hooks.example") as made:
        async with receiving(certificate=made) as receiver:
            for host, trusted, delivered in (
                ("hooks.example", False, False),
                ("other.example", True, False),
                ("hooks.example", True, True),
            ):
                counted = Counted()
                if trusted:
                    monkeypatch.setenv("SSL_CERT_FILE", str(made.cert))
                async with running_callbacks(stores, settings, look_up=names):
                    await stores.outbox.put([a_callback(receiver.url(host=host))])
                    await emptied(stores)
                assert counted.grown()["delivered"] == int(delivered), host
                assert len(receiver.requests) == int(delivered)
    assert caplog.text.count("ClientConnectorCertificateError") == 2


async def test_a_look_up_that_hangs_is_given_up_and_holds_up_no_other(stores: Stores) -> None:
    async def hanging(host: str, port: int) -> Sequence[str]:
        if host == "slow.example":
            await asyncio.sleep(3600)
        return ["127.0.0.1"]

    failed = Counted()
    settings = quick(timeout=2.0, per_host=1)
    async with receiving() as receiver, running_callbacks(stores, settings, look_up=hanging):
        await stores.outbox.put([a_callback(receiver.url(host="slow.example")) for _ in range(3)])
        await stores.outbox.put([a_callback(receiver.url(host="fast.example")) for _ in range(3)])
        await receiver.has(3)
        async with asyncio.timeout(60):
            while not failed.grown()["failed_attempts"]:
                await asyncio.sleep(0.01)
    assert {one.headers["Host"] for one in receiver.requests} == {f"fast.example:{receiver.port}"}
