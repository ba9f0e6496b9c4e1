"""Secrets in files: what a container gets, when they are another version, and what is refused."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from pathlib import Path

import pytest

from runner_node import calls, metrics, secret_files
from runner_node.calls import Target
from runner_node.secret_files import LARGEST, SecretFiles
from shared_models import errors
from shared_models.app import App
from shared_models.fn import Fn


def target(config: dict[str, str], app: str = "shop", fn_id: str = "f") -> Target:
    fn = Fn(id=fn_id, app_id="a", name="fn", image="i", memory=1, timeout=1, idle_timeout=1, config=config)
    return calls.of_fn(fn, App(id="a", name=app))


def put(folder: Path, name: str, content: bytes) -> None:
    """As Kubernetes changes a mounted secret: a link that is swapped."""
    (folder / "shop").mkdir(exist_ok=True)
    kept = folder / f"..{len(list(folder.iterdir()))}-{name}"
    kept.write_bytes(content)
    (folder / "new").symlink_to(kept)
    os.replace(folder / "new", folder / "shop" / name)


async def test_a_container_gets_the_content_without_its_last_newline(tmp_path: Path) -> None:
    put(tmp_path, "db", b"s3cret\n\n")
    made = target({"DB": "secret://db", "PLAIN": "x"})
    env = await SecretFiles(str(tmp_path)).resolved(made)
    assert (env["DB"], env["PLAIN"], env["FN_FN_ID"]) == ("s3cret\n", "x", "f")
    assert made.env["DB"] == "secret://db", "what is kept of the function has no secret"


async def test_a_changed_file_is_another_version_of_the_function(tmp_path: Path) -> None:
    files = SecretFiles(str(tmp_path))
    put(tmp_path, "db", b"one")
    first = files.stamp(target({"DB": "secret://db"}))
    assert files.stamp(target({"DB": "secret://db"})).key == first.key
    assert not await files.look(), "no container has any of its contents"
    await files.resolved(first)
    assert not await files.look()
    assert not files.changed(first)
    put(tmp_path, "db", b"two")
    assert await files.look()
    assert files.changed(first)
    assert files.stamp(target({"DB": "secret://db"})).key != first.key
    plain = target({"DB": "x"})
    assert files.stamp(plain).key == target({"DB": "x"}).key


async def test_a_change_between_two_containers_of_a_version_replaces_both(tmp_path: Path) -> None:
    files = SecretFiles(str(tmp_path))
    put(tmp_path, "db", b"one")
    made = files.stamp(target({"DB": "secret://db"}))
    assert (await files.resolved(made))["DB"] == "one"
    put(tmp_path, "db", b"two")
    assert (await files.resolved(made))["DB"] == "two"
    assert await files.look()
    assert files.changed(made)
    renewed = files.stamp(target({"DB": "secret://db"}))
    await files.resolved(renewed)
    assert not await files.look()
    assert not files.changed(renewed)


async def test_a_file_that_hangs_keeps_neither_the_node_nor_other_apps_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shared_models.aside.PATIENCE", 0.2)
    files = SecretFiles(str(tmp_path))
    put(tmp_path, "db", b"one")
    (tmp_path / "stuck").mkdir()
    os.mkfifo(tmp_path / "stuck" / "db")  # who opens it waits for somebody who writes
    async with asyncio.timeout(30):
        for _ in range(3):
            with pytest.raises(errors.SecretMissing, match="config DB of app stuck"):
                await files.resolved(target({"DB": "secret://db"}, "stuck"))
        assert (await files.resolved(target({"DB": "secret://db"})))["DB"] == "one"
        # One thread is lost, however often it is asked for; that of the other app is about to end.
        while [thread.name for thread in threading.enumerate()].count("read secrets") != 1:
            await asyncio.sleep(0.01)
        with (tmp_path / "stuck" / "db").open("wb") as late:
            late.write(b"here")
        os.unlink(tmp_path / "stuck" / "db")
        (tmp_path / "stuck" / "db").write_bytes(b"here")
        assert (await files.resolved(target({"DB": "secret://db"}, "stuck")))["DB"] == "here"
    assert "secrets of app stuck cannot be read: no answer within 0.2 s" in caplog.text


async def test_no_look_at_a_folder_that_hangs_holds_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shared_models.aside.PATIENCE", 0.2)
    loop, there = asyncio.get_running_loop(), threading.Event()

    def hangs(path: str) -> object:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        assert there.wait(30)
        return path

    monkeypatch.setattr(secret_files, "version", hangs)
    files = SecretFiles(str(tmp_path))
    began = loop.time()
    made = files.stamp(target({"DB": "secret://db"}))
    assert not files.changed(made)
    assert loop.time() - began < 0.2, "no file is touched for it"
    async with asyncio.timeout(30):
        for _ in range(2):
            assert not await files.look()
        there.set()
        assert not await files.look()
    assert caplog.text.count("are not seen: no answer within 0.2 s") == 1


@pytest.mark.parametrize("content", [None, b"\xff", b"a\0b", b"x" * (LARGEST + 1)])
async def test_a_secret_that_cannot_be_had_is_named_and_its_path_only_in_the_log(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if content is not None:
        put(tmp_path, "db", content)
    with caplog.at_level(logging.WARNING), pytest.raises(errors.SecretMissing) as caught:
        await SecretFiles(str(tmp_path)).resolved(target({"DB": "secret://db"}))
    assert caught.value.message.startswith("config DB of app shop: this runner has no secret 'db'")
    assert caught.value.code == 502
    assert str(tmp_path) not in caught.value.message
    assert str(tmp_path / "shop" / "db") in caplog.text
    assert "xxx" not in caplog.text


@pytest.mark.parametrize("app", ["", "..", ".", "a/b", "other"])
async def test_an_app_reads_its_own_folder_only(app: str, tmp_path: Path) -> None:
    put(tmp_path, "db", b"one")
    with pytest.raises(errors.SecretMissing):
        await SecretFiles(str(tmp_path)).resolved(target({"DB": "secret://db"}, app))


async def test_the_largest_secret_fits(tmp_path: Path) -> None:
    put(tmp_path, "db", b"x" * LARGEST + b"\n")
    env = await SecretFiles(str(tmp_path)).resolved(target({"DB": "secret://db"}))
    assert len(env["DB"]) == LARGEST


async def test_without_a_folder_no_secret_is_found() -> None:
    assert not secret_files.uses({"A": "secret:/x"})
    with pytest.raises(errors.SecretMissing, match="config DB of app shop: this runner has no secret 'db'"):
        await SecretFiles("").resolved(target({"A": "x", "DB": "secret://db"}))


async def test_without_a_folder_each_function_that_needs_one_is_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SecretFiles("")

    async def starts(fn_id: str) -> None:
        for config in ({"DB": "secret://db"}, {"DB": "secret://db", "OTHER": "secret://other"}):
            with pytest.raises(errors.SecretMissing):
                await files.resolved(target(config, fn_id=fn_id))

    def told(fn_id: str) -> int:
        said = (
            f"function {fn_id} of app shop has a secret in config DB, and FN_SECRETS_PATH is not set on this "
            "node: its calls are answered 502"
        )
        return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING].count(said)

    for _ in range(2):
        await starts("one")
        await starts("two")
    await files.resolved(target({"DB": "plain"}, fn_id="three"))
    assert (told("one"), told("two"), len(caplog.records)) == (1, 1, 2)
    monkeypatch.setattr(secret_files, "MOST_TOLD", 2)
    await starts("four")
    assert len(files._told) == 1, "what is remembered of functions is bounded"


@pytest.mark.parametrize(
    ("reason", "config", "folder"),
    [
        ("no_folder", {"DB": "secret://db"}, False),
        ("unreadable", {"DB": "secret://nothing"}, True),
        ("unusable", {"DB": "secret://large"}, True),
        ("unusable", {"DB": "secret://../shop"}, True),
    ],
)
async def test_starts_without_their_secret_are_counted_by_reason(
    reason: str, config: dict[str, str], folder: bool, tmp_path: Path
) -> None:
    put(tmp_path, "large", b"x" * (LARGEST + 1))
    counted = metrics.secrets_missing.labels(reason)._value.get
    before = counted()
    with pytest.raises(errors.SecretMissing):
        await SecretFiles(str(tmp_path) if folder else "").resolved(target(config))
    assert counted() == before + 1
