"""``fn-node doctor``: what it says of tokens."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest

from services.identity.checkup import examine_identity
from services.identity.settings import IdentitySettings
from shared_models.finding import Finding, Level
from tests.integration.test_identity_file import entry
from tests.servers.issuer import running_issuer


async def found(**settings: object) -> list[Finding]:
    given = IdentitySettings(**settings)  # type: ignore[arg-type]
    async with asyncio.timeout(60):
        return [one async for one in examine_identity(given)]


async def test_where_there_are_no_tokens_nothing_is_said() -> None:
    assert await found() == []


async def test_a_good_file_is_well_and_tokens_that_end_soon_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    path.write_text(
        entry("ann")
        + entry("bob", ", expires: 2020-01-01")
        + entry("cid", f", expires: '{soon.isoformat()}'")
    )
    well, bob, cid = await found(tokens_path=str(path))
    assert (well.level, well.says) == (Level.OK, f"{path} has 3 tokens")
    assert (bob.level, bob.says) == (Level.WARNING, "that of bob has expired")
    assert (cid.level, cid.says) == (Level.WARNING, "the token of cid ends in 3.0 days")


@pytest.mark.parametrize("text", [None, "- {}"])
async def test_a_bad_file_is_an_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "tokens"
    if text:
        path.write_text(text)
    [bad] = await found(tokens_path=str(path))
    assert bad.level is Level.ERROR
    assert bad.says.startswith(f"{path} cannot be used: ")


async def test_an_issuer_is_asked_for_its_keys() -> None:
    async with running_issuer() as issuer:
        settings = {"issuer": issuer.url, "audience": ("fn",)}
        [well] = await found(**settings)
        assert (well.level, well.says) == (Level.OK, f"{issuer.url} has 1 keys")
        issuer.given = []
        [empty] = await found(**settings)
        assert (empty.level, empty.says) == (Level.ERROR, "it has no keys")
        await issuer.stop()
        [away] = await found(**settings)
        assert away.level is Level.ERROR
        assert issuer.url in away.says
