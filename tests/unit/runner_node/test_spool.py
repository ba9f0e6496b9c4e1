"""The spool: bounded in bytes, with a policy, on disks that are full."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from runner_node import metrics
from runner_node.spool import Spool, inherit, prepare
from shared_models.annotations import texts
from shared_models.call import Call, Finished, Reason, Status
from shared_models.ids import new_id
from tests.engine.packages import missing


def one(size: int = 0, **fields: str) -> Finished:
    call = Call(id=new_id(), status=Status.SUCCESS, **fields)  # type: ignore[arg-type]
    return Finished(call=call, log=b"x" * size)


def files(folder: Path) -> list[str]:
    return sorted(path.name.partition(".")[2] for path in folder.iterdir())


async def all_of(spool: Spool) -> list[Finished]:
    found = []
    while batch := await spool.first():
        found += batch[1]
        await spool.remove(batch[0])
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        missing(f"NO SMALL DISK: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_all_of_a_result_is_kept(tmp_path):
    result = Finished(
        call=Call(id=new_id(), status=Status.ERROR, reason=Reason.OOM, attempt=2, callback_url="http://h"),
        log=b"\xff log", token="t", body=b"\xff body", content_type="x/y", truncated=True,
        answered=True,
    )  # fmt: skip
    await Spool(tmp_path / "s", 1 << 20).put([result])
    assert await all_of(Spool(tmp_path / "s", 1 << 20)) == [result]


async def test_the_annotations_of_a_queued_calls_result_are_kept(tmp_path):
    """They are JSON text inside of a call, and say whether it is to be run again."""
    asks = {"fn.hybrid/async/retry-on": msgspec.Raw(b'"error"'), "a/b": msgspec.Raw(b'{"n":[1.50]}')}
    await Spool(tmp_path / "s", 1 << 20).put([Finished(call=Call(id=new_id(), annotations=asks), token="t")])
    [kept] = await all_of(Spool(tmp_path / "s", 1 << 20))
    assert texts(kept.call.annotations) == texts(asks)


async def test_results_of_the_version_before_are_read(tmp_path):
    """A file as it was written before reasons, callbacks and the answers for them were known."""
    call = {name: value for name, value in msgspec.to_builtins(Call(id="old", status="success")).items()}
    for new in ("reason", "callback_url", "idempotency_key"):
        del call[new]
    call["payload"] = b""
    old = msgspec.msgpack.encode([{"call": call, "log": b"old log", "token": "t"}])
    (tmp_path / "01.results").write_bytes(old)
    [result] = await all_of(Spool(tmp_path, 1 << 20))
    assert result == Finished(call=Call(id="old", status="success"), log=b"old log", token="t")


async def test_results_of_sync_calls_make_room_for_those_of_queued_calls(tmp_path):
    spool = Spool(tmp_path / "s", 10_000)
    before = metrics.results_dropped._value.get()
    assert await spool.put([one(4000), one(0)], droppable=True)
    assert await spool.put([one(4000)], droppable=True)
    assert not await spool.put([one(4000)], droppable=True), "they make no room for one another"
    queued = [one(4000), one(4000)]
    assert await spool.put([queued[0]])
    assert spool.dropped == 2
    assert await spool.put([queued[1]])
    assert spool.dropped == 3
    assert metrics.results_dropped._value.get() == before + 3
    assert not await spool.put([one(4000)])
    assert await all_of(spool) == queued


async def test_nothing_makes_room_for_what_is_larger_than_the_spool(tmp_path):
    spool = Spool(tmp_path / "s", 5000)
    kept = one(1000)
    assert await spool.put([kept], droppable=True)
    assert not await spool.put([one(6000)])
    assert (spool.dropped, await all_of(spool)) == (0, [kept])


async def test_a_spool_that_stays_full_says_so_once_a_minute_with_its_sizes(tmp_path, caplog, monkeypatch):
    spool, now = Spool(tmp_path / "s", 2000), 100.0
    monkeypatch.setattr("runner_node.spool.time.monotonic", lambda: now)
    for _ in range(5):
        assert not await spool.put([one(4000)])
    [line] = caplog.messages
    assert re.search(r"is full: it has 0 of 2000 bytes, 4\d\d\d more do not fit", line)
    now += 60
    assert not await spool.put([one(4000)])
    assert len(caplog.messages) == 2


async def test_its_size_is_told_and_is_right_after_a_restart(tmp_path):
    spool = Spool(tmp_path / "s", 10_000)
    await spool.put([one(5000)])
    size = sum(path.stat().st_size for path in (tmp_path / "s").iterdir())
    assert metrics.spool_bytes._value.get() == size
    spool = Spool(tmp_path / "s", 10_000)
    assert not await spool.put([one(5000)])
    await all_of(spool)
    assert metrics.spool_bytes._value.get() == 0
    assert await spool.put([one(5000)])


async def test_half_a_batch_of_a_predecessor_is_removed(tmp_path):
    (tmp_path / "01.part").write_bytes(b"x" * 5000)
    spool = Spool(tmp_path, 6000)
    assert await spool.put([one(1000)])
    assert files(tmp_path) == ["results"]


async def test_a_full_disk_is_a_full_spool_and_leaves_nothing_half(small_disk, caplog):
    spool = Spool(small_disk / "s", 1 << 30)
    assert await spool.put([one(40_000)], droppable=True)
    assert not await spool.put([one(40_000)], droppable=True)
    assert files(small_disk / "s") == ["sync.results"]
    queued = one(40_000)
    assert await spool.put([queued]), "a result of a sync call has made room for it"
    assert spool.dropped == 1
    assert not await spool.put([one(40_000)])
    assert await all_of(spool) == [queued]
    assert os.strerror(errno.ENOSPC) in caplog.text


async def test_a_node_that_never_spooled_leaves_no_folder(tmp_path):
    assert await Spool(tmp_path / "s", 1 << 20).first() is None
    assert not (tmp_path / "s").exists()


def test_a_folder_that_cannot_be_written_is_named_before_it_is_needed(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    prepare(tmp_path / "file" / "s", lambda name: False)
    assert "cannot be written: " in caplog.text
    assert "until it can, results wait in memory only" in caplog.text


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path, caplog):
    for there in (False, True):
        prepare(tmp_path / "spool" / "node", lambda name: False)
        assert (tmp_path / "spool" / "node").exists() is there
        (tmp_path / "spool" / "node").mkdir(exist_ok=True)
    assert list((tmp_path / "spool" / "node").iterdir()) == []
    assert caplog.text == ""


async def test_a_folder_that_cannot_be_made_is_named(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert not await Spool(tmp_path / "file" / "s", 1 << 20).put([one()])
    assert "cannot be written: " in caplog.text


async def test_the_spool_gets_what_those_have_left_who_are_no_more(tmp_path: Path) -> None:
    for name in ("node", "node+1", "node+2"):
        assert await Spool(tmp_path / name, 1 << 20).put([one(1)])
    inherit(tmp_path / "node", lambda name: name == "node+2")
    assert sorted(os.listdir(tmp_path)) == ["node", "node+1"]
    assert len(await all_of(Spool(tmp_path / "node", 1 << 20))) == 2
    inherit(tmp_path / "other", lambda name: name == "node+1")
    assert len(await all_of(Spool(tmp_path / "other", 1 << 20))) == 1
    inherit(tmp_path / "none" / "node", lambda name: True)
