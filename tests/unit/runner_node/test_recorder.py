"""Results on their way to the API node: batches, refusals, the spool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runner_node import desk
from runner_node import recorder as module
from runner_node.func_logs import CallLog
from runner_node.recorder import Recorder
from runner_node.records import Said
from runner_node.results import Result
from runner_node.spool import Spool
from shared_models.call import Call, Finished, Status
from shared_models.ids import new_id
from tests.unit.runner_node.scripted_data import ScriptedData


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "SETTLE", 0.001)
    monkeypatch.setattr(module, "RETRY", 0.01)


@pytest.fixture
def data() -> ScriptedData:
    return ScriptedData()


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path / "spool", 1 << 20)


@asynccontextmanager
async def running(data: ScriptedData, spool: Spool | None) -> AsyncIterator[Recorder]:
    recorder = Recorder(data, spool)
    task = asyncio.create_task(recorder.run())
    yield recorder
    recorder.drain()
    await asyncio.wait_for(task, 60)


def result(text: bytes = b"", stored: object = None) -> Result:
    log = CallLog(0)
    log.write(text)
    return Result(Call(id=new_id(), status=Status.SUCCESS), log, stored=stored)  # type: ignore[arg-type]


def files(spool: Spool, suffix: str = "*") -> list[Path]:
    return sorted(spool._folder.glob(suffix)) if spool._folder.exists() else []


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


async def test_results_that_come_together_go_together(data):
    async with running(data, None) as recorder:
        for _ in range(50):
            recorder.add(result(b"line\n"))
    assert data.batches == [50]
    assert all(one.log == b"line\n" for one in data.finished)


async def test_what_is_written_before_the_batch_leaves_is_in_the_log(data):
    async with running(data, None) as recorder:
        late = result(b"early ")
        recorder.add(late)
        late.log.write(b"late")
    assert data.finished[0].log == b"early late"


async def test_whoever_waits_for_a_result_is_told_whether_it_was_taken(data):
    told: dict[str, bool] = {}
    taken, refused = (result(stored=lambda ok, n=n: told.__setitem__(n, ok)) for n in ("taken", "refused"))
    data.refused.add(refused.call.id)
    async with running(data, None) as recorder:
        recorder.add(taken)
        recorder.add(refused)
    assert told == {"taken": True, "refused": False}


async def test_one_bad_result_does_not_cost_the_others(data):
    good, bad = result(), result()
    data.bad.add(bad.call.id)
    async with running(data, None) as recorder:
        recorder.add(bad)
        recorder.add(good)
    assert [one.call.id for one in data.finished] == [good.call.id]
    assert recorder.dropped == 1


async def test_results_are_spooled_while_the_api_node_is_away_and_handed_in_later(data, spool):
    data.away = True
    async with running(data, spool) as recorder:
        first = result(b"\xff binary")
        recorder.add(first)
        await until(lambda: files(spool, "*.results"))
        data.away = False
        await asyncio.wait_for(data.took.wait(), 60)
    assert data.finished[0].call == first.call
    assert data.finished[0].log == b"\xff binary"
    assert files(spool) == []


async def test_what_is_kept_is_counted_wherever_it_is_until_it_is_taken(data, spool):
    async with running(data, spool) as recorder:
        assert recorder.kept == 1, "what a predecessor left is not known yet"
        await until(lambda: not recorder.kept)
        data.away = True
        for count in range(1, 4):
            recorder.add(result())
            assert recorder.kept >= count
            await until(lambda count=count: len(files(spool, "*.results")) == count)
        assert recorder.kept >= 3
        files(spool, "*.results")[0].unlink()
        data.away = False
        await until(lambda: not recorder.kept)
        assert len(data.finished) == 2
        assert files(spool) == []


async def test_a_node_that_stops_while_the_api_node_is_away_leaves_its_results_to_the_next(data, spool):
    data.away = True
    async with running(data, spool) as recorder:
        kept = result()
        recorder.add(kept)
    assert len(files(spool, "*.results")) == 1
    data.away = False
    async with running(data, spool):
        await asyncio.wait_for(data.took.wait(), 60)
    assert [one.call.id for one in data.finished] == [kept.call.id]


async def test_without_a_spool_results_wait_in_memory_up_to_a_limit(data, monkeypatch):
    monkeypatch.setattr(module, "BUFFER", 10)
    data.away = True
    async with running(data, None) as recorder:
        for _ in range(15):
            recorder.add(result())
        await until(lambda: recorder.dropped >= 5)
        data.away = False
    assert len(data.finished) == 10


async def test_a_full_spool_says_so(tmp_path, data, caplog):
    spool = Spool(tmp_path / "s", 10)
    assert not await spool.put([Finished(call=Call(id=new_id()))])
    assert "is full" in caplog.text


async def test_a_broken_batch_is_set_aside(tmp_path, spool, caplog):
    await spool.put([Finished(call=Call(id="good"))])
    (tmp_path / "spool" / "0.results").write_bytes(b"not msgpack")
    found = await spool.first()
    assert found is not None
    assert found[1][0].call.id == "good"
    assert len(files(spool, "*.broken")) == 1


async def test_a_spooled_result_that_is_refused_does_not_cost_the_others(data, spool):
    good, bad = Call(id=new_id(), status=Status.SUCCESS), Call(id=new_id(), status=Status.SUCCESS)
    data.bad.add(bad.id)
    await spool.put([Finished(call=bad, log=b"b"), Finished(call=good, log=b"g")])
    async with running(data, spool) as recorder:
        await until(lambda: recorder.dropped)
    assert [(one.call.id, one.log) for one in data.finished] == [(good.id, b"g")]
    assert files(spool) == []


async def test_while_the_api_node_hangs_what_comes_behind_is_spooled(data, spool, monkeypatch):
    monkeypatch.setattr(module, "BUFFER", 10)
    monkeypatch.setattr(module, "BATCH", 10)
    data.gate.clear()
    async with running(data, spool) as recorder:
        first = result()
        recorder.add(first)
        await until(lambda: data.asked["finish"])
        for _ in range(100):
            recorder.add(result())
        await until(lambda: recorder.waiting <= 10 and len(files(spool, "*.results")) >= 9)
        data.gate.set()
        await until(lambda: len(data.finished) == 101)
    assert recorder.dropped == 0
    assert files(spool) == []


async def test_a_node_that_stops_while_the_api_node_hangs_spools_and_ends(data, spool):
    data.gate.clear()
    async with running(data, spool) as recorder:
        recorder.add(result())
        await until(lambda: data.asked["finish"])
        recorder.add(result())
    assert len(files(spool, "*.results")) == 2
    assert recorder.dropped == 0


async def test_spooled_results_are_handed_in_under_steady_load(data, spool):
    await spool.put([Finished(call=Call(id="spooled", status=Status.SUCCESS))])
    async with running(data, spool) as recorder:
        recorder.add(result())

        def more() -> bool:
            recorder.add(result())  # so that there is always a newer one
            return any(one.call.id == "spooled" for one in data.finished)

        await until(more)
    assert files(spool) == []


async def test_results_are_kept_while_the_token_is_wrong(data, spool):
    data.unauthorized = True
    async with running(data, spool) as recorder:
        recorder.add(result())
        await until(lambda: files(spool, "*.results"))
        data.unauthorized = False
        await asyncio.wait_for(data.took.wait(), 60)
    assert recorder.dropped == 0


async def test_a_result_whose_log_is_too_large_is_handed_in_with_less_of_it(data):
    data.largest_log = desk.LONGEST_LOG + 100
    told: list[bool] = []
    async with running(data, None) as recorder:
        large = result(b"x" * (desk.LONGEST_LOG + 1000), stored=told.append)
        recorder.add(large)
        recorder.add(result(b"small"))
    assert {len(one.log) > desk.LONGEST_LOG for one in data.finished} == {True, False}
    [cut] = [one for one in data.finished if one.call.id == large.call.id]
    assert b"takes no log of %d bytes" % (desk.LONGEST_LOG + 1000) in cut.log
    assert told == [True]


async def test_an_api_node_that_is_away_is_named_once(data, spool, caplog):
    caplog.set_level("INFO")
    data.away = True
    async with running(data, spool) as recorder:
        for number in range(5):
            recorder.add(result())
            await until(lambda number=number: len(files(spool, "*.results")) > number)
        data.away = False
        await until(lambda: len(data.finished) == 5)
    assert caplog.text.count("no API node takes results") == 1
    assert caplog.text.count("takes results again") == 1


# -- what is lost first ------------------------------------------------------------------------


def queued_result(text: bytes = b"", stored: object = None) -> Result:
    one = result(text, stored)
    one.token = "token"
    return one


async def test_when_memory_is_full_results_of_sync_calls_go_first_and_the_oldest_of_them(data, monkeypatch):
    monkeypatch.setattr(module, "BUFFER", 4)
    data.hold("finish")
    async with running(data, None) as recorder:
        recorder.add(result())
        await until(lambda: data.asked["finish"])
        results = [queued_result(), result(), queued_result(), result(), result(), queued_result()]
        for one in results:
            recorder.add(one)
        await until(lambda: recorder.dropped == 2)
        data.let_go("finish")
        await until(lambda: len(data.finished) == 5)
    kept = [results[number].call.id for number in (0, 2, 4, 5)]
    assert [one.call.id for one in data.finished[1:]] == kept


async def test_a_queued_calls_result_that_cannot_be_kept_lets_its_lease_go(data, monkeypatch, caplog):
    monkeypatch.setattr(module, "BUFFER", 2)
    told: list[tuple[int, bool]] = []
    data.hold("finish")
    async with running(data, None) as recorder:
        recorder.add(result())
        await until(lambda: data.asked["finish"])
        for number in range(3):
            recorder.add(queued_result(stored=lambda taken, number=number: told.append((number, taken))))
        await until(lambda: told)
        assert told == [(2, False)]
        assert "it will run again" in caplog.text
        data.let_go("finish")
    assert sorted(told) == [(0, True), (1, True), (2, False)]


async def test_memory_is_bounded_in_bytes_too(data, monkeypatch):
    monkeypatch.setattr(module, "BUFFER_BYTES", 100_000)
    data.hold("finish")
    async with running(data, None) as recorder:
        recorder.add(result())
        await until(lambda: data.asked["finish"])
        for _ in range(10):
            recorder.add(result(b"x" * 30_000))
        await until(lambda: recorder.dropped == 7)
        assert recorder.waiting == 3
        data.let_go("finish")


async def test_a_full_spool_keeps_queued_calls_results_and_loses_those_of_sync_calls(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "BUFFER", 0)
    spool = Spool(tmp_path / "s", 20_000)
    data.away = True
    lost: list[bool] = []
    async with running(data, spool) as recorder:
        for _ in range(4):
            recorder.add(result(b"x" * 6000))
            await until(lambda: not recorder.waiting)
        await until(lambda: recorder.dropped == 1)
        for _ in range(3):
            recorder.add(queued_result(b"x" * 6000, stored=lost.append))
            await until(lambda: not recorder.waiting)
        await until(lambda: recorder.dropped == 4)
        assert lost == [], "their leases are still renewed"
        recorder.add(queued_result(b"x" * 6000, stored=lost.append))
        await until(lambda: lost == [False])
        data.away = False
        await until(lambda: len(data.finished) == 3)
        await until(lambda: lost == [False, True, True, True])
    assert {one.token for one in data.finished} == {"token"}


async def test_a_spooled_result_that_is_refused_is_counted(data, spool):
    from runner_node import metrics

    before = metrics.results_refused._value.get()
    call = Call(id=new_id(), status=Status.SUCCESS)
    await spool.put([Finished(call=call, token="old lease")])
    data.refused.add(call.id)
    async with running(data, spool):
        await until(lambda: metrics.results_refused._value.get() == before + 1)
    assert files(spool) == []


async def test_the_answer_for_a_callback_goes_through_the_spool(data, spool):
    data.away = True
    async with running(data, spool) as recorder:
        one = queued_result()
        one.answer = Said(b"answer", "x/y", True, answered=True)
        recorder.add(one)
        await until(lambda: files(spool, "*.results"))
        data.away = False
        await until(lambda: data.finished)
    [done] = data.finished
    assert (done.body, done.content_type, done.truncated, done.token) == (b"answer", "x/y", True, "token")
    assert done.answered


def test_a_result_out_of_the_spool_is_handed_in_as_it_was() -> None:
    call = Call(id=new_id(), status=Status.SUCCESS)
    one = Finished(
        call=call, log=b"log", token="t", body=b"", content_type="x/y", truncated=True, answered=True
    )
    assert Result.again(one, None).finished() == one


async def test_a_recorder_that_breaks_down_begins_again_and_loses_nothing(data, spool, monkeypatch, caplog):
    data.away = True
    put, broken = spool.put, asyncio.Event()

    async def breaks(*batch: object, **how: object) -> bool:
        if not broken.is_set():
            broken.set()
            raise ZeroDivisionError
        return await put(*batch, **how)

    monkeypatch.setattr(spool, "put", breaks)
    async with running(data, spool) as recorder:
        recorder.add(result())
        await until(lambda: files(spool, "*.results"))
        data.away = False
        await until(lambda: data.finished)
    assert "the recorder broke down" in caplog.text


# -- the end -----------------------------------------------------------------------------------


async def test_a_node_without_a_spool_does_not_wait_for_ever_for_an_api_node_that_hangs(data, monkeypatch):
    monkeypatch.setattr(module, "PARTING", 0.02)
    data.hold("finish")
    async with running(data, None) as recorder:
        recorder.add(result())
        await until(lambda: data.asked["finish"])
        recorder.add(result())
    assert recorder.dropped == 2


async def test_a_node_that_stops_does_not_wait_for_what_it_had_spooled(data, spool):
    await spool.put([Finished(call=Call(id=new_id(), status=Status.SUCCESS))])
    data.hold("finish")
    async with running(data, spool):
        await until(lambda: data.asked["finish"])
    assert len(files(spool, "*.results")) == 1


async def test_a_node_that_stops_with_much_to_hand_in_asks_a_silent_api_node_once(data, spool, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 5)
    data.hold("finish")
    async with running(data, spool) as recorder:
        for _ in range(50):
            recorder.add(result())
        await until(lambda: data.asked["finish"])
        asked = data.asked["finish"]
    assert data.asked["finish"] == asked
    assert recorder.dropped == 0
    assert len(files(spool, "*.results")) == 10


async def test_the_lease_of_a_spooled_result_is_kept_until_an_api_node_has_it(data, spool):
    """Else the call would run again though nothing died: only results are not taken."""
    settled: list[bool] = []
    data.away = True
    async with running(data, spool) as recorder:
        recorder.add(queued_result(stored=settled.append))
        await until(lambda: files(spool, "*.results"))
        await until(lambda: data.asked["finish"] >= 3)
        assert settled == []
        data.away = False
        await until(lambda: settled)
    assert settled == [True]


async def test_a_node_that_stops_keeps_no_lease_for_what_it_spooled(data, spool):
    settled: list[bool] = []
    data.away = True
    async with running(data, spool) as recorder:
        recorder.drain()
        recorder.add(queued_result(stored=settled.append))
        await until(lambda: settled)
    assert settled == [True]
    assert len(files(spool, "*.results")) == 1


async def test_a_spooled_result_that_cannot_be_read_any_more_lets_its_lease_go(data, spool, caplog):
    settled: list[bool] = []
    data.away = True
    async with running(data, spool) as recorder:
        recorder.add(queued_result(stored=settled.append))
        await until(lambda: files(spool, "*.results"))
        files(spool, "*.results")[0].write_bytes(b"\x00 no batch")
        await until(lambda: settled)
    assert settled == [False]
    assert "cannot be read and is set aside" in caplog.text
