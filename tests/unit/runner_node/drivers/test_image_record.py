"""What a node pulled, in a file: across restarts, for several workers."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner_node.drivers.image_record import ImageRecord
from runner_node.drivers.image_use import ImageUse, Pulled


def record(folder: Path, engine: str = "unix:///run/engine.sock") -> ImageRecord:
    return ImageRecord(str(folder / "images"), engine)


def test_what_one_process_puts_in_the_next_one_finds_and_other_engines_do_not(tmp_path: Path) -> None:
    mine = {"a": Pulled({"x:1"}, 5.0)}
    assert record(tmp_path).exchange(mine, {}) == mine
    assert record(tmp_path).exchange({}, {}) == mine
    assert record(tmp_path, "tcp://other:2376").exchange({}, {}) == {}


def test_names_of_all_are_kept_and_the_latest_use_counts(tmp_path: Path) -> None:
    one, two = record(tmp_path), record(tmp_path)
    one.exchange({"a": Pulled({"x:1"}, 5.0), "b": Pulled({"y:1"}, 5.0)}, {})
    known = two.exchange({"a": Pulled({"x:2"}, 3.0)}, {"b": 9.0, "foreign": 9.0})
    assert known == {"a": Pulled({"x:1", "x:2"}, 5.0), "b": Pulled({"y:1"}, 9.0)}
    assert one.exchange({}, {}) == known


def test_what_is_gone_is_forgotten_and_may_come_again(tmp_path: Path) -> None:
    one = record(tmp_path)
    one.exchange({"a": Pulled({"x:1"}, 5.0)}, {})
    assert one.exchange({}, {}, {"a", "never-there"}) == {}
    assert one.exchange({"a": Pulled({"x:1"}, 6.0)}, {}, {"a"}) == {"a": Pulled({"x:1"}, 6.0)}


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            pool.submit(record(tmp_path).exchange, {str(number): Pulled({f"x:{number}"}, 1.0)}, {})
    assert len(record(tmp_path).exchange({}, {})) == 40
    assert not [each for each in (tmp_path / "images").iterdir() if each.suffix not in (".json", ".lock")]


def test_one_cleans_at_a_time(tmp_path: Path) -> None:
    first = record(tmp_path).alone()
    assert first
    assert record(tmp_path).alone() is None
    first.close()
    second = record(tmp_path).alone()
    assert second
    second.close()


def test_a_file_that_is_no_record_is_said_to_be_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = record(tmp_path)
    one.exchange({"a": Pulled({"x:1"}, 5.0)}, {})
    (file,) = (tmp_path / "images").glob("*.json")
    file.write_text('{"images": 3}')
    with caplog.at_level(logging.WARNING):
        assert one.exchange({}, {}) == {}
    assert "images that were pulled before stay until you remove them" in caplog.text


def test_use_counts_for_an_image_that_another_process_pulled() -> None:
    mine = ImageUse(on=True)
    mine.seen("me/fn", "a")
    mine.note("me/fn")
    assert dict(mine.pulled) == {}
    mine.learn({"a": Pulled({"docker.io/me/fn:latest"}, 1.0)})
    assert mine.pulled["a"].used == mine.uses()["a"] > 1.0


def test_what_a_name_meant_before_is_not_used_by_it() -> None:
    mine = ImageUse(on=True)
    mine.came("me/fn", "a")
    mine.learn({"a": Pulled(set(), 1.0)})
    before = mine.pulled["a"].used
    mine.came("me/fn", "b")
    mine.note("me/fn")
    assert mine.pulled["a"].used == before
    assert mine.names("a") == []
    assert mine.names("b") == ["me/fn"]
