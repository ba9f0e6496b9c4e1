"""The file of tokens, followed: written in place, renamed over, swapped by a link as in a mounted secret."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.identity.opening import Identity, open_identity
from services.identity.settings import IdentitySettings
from services.identity.tokens import digest
from shared_models.errors import Unauthorized


def entry(name: str, more: str = "") -> str:
    """Of the token that is called as its owner."""
    return f"- {{name: {name}, sha256: '{digest(name).hex()}', role: viewer, apps: '*'{more}}}\n"


@asynccontextmanager
async def known_by(path: Path) -> AsyncIterator[Identity]:
    async with open_identity(IdentitySettings(tokens_path=str(path), look_every=0.01)) as identity:
        assert identity
        yield identity


def knows(identity: Identity, *names: str) -> bool:
    return all(identity.known(f"Bearer {name}") for name in names)


async def until_known(identity: Identity, *names: str) -> None:
    async with asyncio.timeout(30):
        while not knows(identity, *names):
            await asyncio.sleep(0.01)


async def test_who_has_no_token_is_told_what_to_send(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(entry("ann"))
    async with known_by(path) as identity:
        assert (await identity.who("Bearer ann")).name == "ann"
        assert (await identity.who("bearer  ann ")).name == "ann"
        for header in ("", "ann", "Basic ann", "Bearer", "Bearer "):
            with pytest.raises(Unauthorized, match="send the header Authorization: Bearer TOKEN"):
                await identity.who(header)
            assert identity.known(header) is None
        for token in ("eve", "an", "annn", "\udcff"):
            with pytest.raises(Unauthorized, match="is not known here"):
                await identity.who(f"Bearer {token}")


async def test_a_file_that_hangs_is_an_error_of_the_start_and_told_of_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_models.aside.PATIENCE", 0.2)
    path, hangs = tmp_path / "tokens", tmp_path / "hangs"
    os.mkfifo(hangs)  # who opens it waits for somebody who writes
    async with asyncio.timeout(30):
        with pytest.raises(ValueError, match="hangs cannot be used: no answer within"):
            async with known_by(hangs):
                pass
        os.close(os.open(hangs, os.O_RDWR))
        path.write_text(entry("ann"))
        async with known_by(path) as identity:
            os.replace(hangs, path)
            while "no answer within 0.2 s; the 1 tokens that were read before" not in caplog.text:
                await asyncio.sleep(0.01)
            assert knows(identity, "ann")
    os.close(os.open(path, os.O_RDWR))


async def test_an_expired_token_is_refused_on_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(entry("ann", ", expires: 2020-01-01") + entry("bob", ", expires: 2999-01-01"))
    async with known_by(path) as identity:
        assert knows(identity, "bob")
        assert not knows(identity, "ann")
        with pytest.raises(Unauthorized, match="The token of ann has expired"):
            await identity.who("Bearer ann")
        assert identity.ours("Bearer ann"), "no function may see it either"


async def test_a_file_that_is_written_again_holds(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(entry("ann"))
    async with known_by(path) as identity:
        path.write_text(entry("bob") + entry("cid"))
        await until_known(identity, "bob", "cid")
        assert not knows(identity, "ann")
        (tmp_path / "new").write_text(entry("dan") + entry("eve"))
        os.replace(tmp_path / "new", path)
        await until_known(identity, "dan", "eve")
        assert not knows(identity, "bob")


async def test_a_swapped_link_holds(tmp_path: Path) -> None:
    """A mounted secret: tokens -> ..data/tokens, ..data -> a folder for each version."""
    for version, name in (("..1", "ann"), ("..2", "bob")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tokens").write_text(entry(name))
        # The same moment and size: only the inode tells them apart.
        os.utime(tmp_path / version / "tokens", (1e9, 1e9))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    async with known_by(tmp_path / "tokens") as identity:
        assert knows(identity, "ann")
        (tmp_path / "..new").symlink_to("..2")
        os.replace(tmp_path / "..new", tmp_path / "..data")
        await until_known(identity, "bob")
        assert not knows(identity, "ann")


@pytest.mark.parametrize("broken", ["- {", "- {name: x}\n", None])
async def test_a_broken_file_leaves_the_old_one_in_force(
    tmp_path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens"
    path.write_text(entry("ann"))
    async with known_by(path) as identity:
        with caplog.at_level(logging.ERROR):
            path.unlink() if broken is None else path.write_text(broken)
            async with asyncio.timeout(30):
                while "the 1 tokens that were read before stay in force" not in caplog.text:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        assert str(path) in caplog.text
        assert len(caplog.records) == 1, "it is not said each time"
        assert knows(identity, "ann")
        path.write_text(entry("bob"))
        await until_known(identity, "bob")


@pytest.mark.parametrize("text", [None, "- {", "[]x"])
async def test_a_node_does_not_start_with_a_broken_file(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=f"FN_API_TOKENS: {path} cannot be used"):
        async with known_by(path):
            pass


async def test_a_file_that_is_too_large_is_not_taken_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = entry("ann") + entry("bob")
    for module in ("tokens", "token_file"):
        monkeypatch.setattr(f"services.identity.{module}.LARGEST", len(entry("ann")))
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ValueError, match="it has more than"):
        async with known_by(path):
            pass


async def test_a_bug_while_the_file_is_read_is_not_the_end_of_following_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens"
    path.write_text(entry("ann"))
    async with known_by(path) as identity:
        with monkeypatch.context() as patch:
            patch.setattr("services.identity.token_file.version", lambda path: [][0])
            async with asyncio.timeout(30):
                while "was not read" not in caplog.text:
                    await asyncio.sleep(0.01)
        assert knows(identity, "ann")
        path.write_text(entry("bob"))
        await until_known(identity, "bob")


async def test_without_sources_nobody_is_told_apart() -> None:
    async with open_identity(IdentitySettings()) as identity:
        assert identity is None
