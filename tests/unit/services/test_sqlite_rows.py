"""Statements of many rows: every number of rows arrives whole, once, and in its order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from services import sqlite_rows

COUNTS = (1, 2, 7, 8, 9, 33, 128, 129, 511, 512, 513, 1100)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE things (id TEXT NOT NULL UNIQUE, body BLOB, place INTEGER PRIMARY KEY)")
    yield db
    db.close()


def inserted(db: sqlite3.Connection, rows: list[tuple[object, ...]]) -> int:
    """Inserts *rows*; answers how many statements that took."""
    statements = 0
    for some, size in sqlite_rows.portions(rows):
        db.execute(sqlite_rows.insertion("things", ("id", "body"), size), sqlite_rows.flat(some, size))
        statements += 1
    return statements


@pytest.mark.parametrize("count", COUNTS)
def test_rows_are_inserted_in_their_order_and_places_without_a_row_insert_none(db, count):
    rows = [(f"id {number:05}", b"" if number % 2 else None) for number in range(count)]
    assert inserted(db, list(reversed(rows))) == -(-count // 512)
    assert db.execute("SELECT id, body FROM things ORDER BY place DESC").fetchall() == rows


@pytest.mark.parametrize("count", COUNTS)
def test_a_list_of_ids_finds_those_and_no_others(db, count):
    inserted(db, [(f"id {number:05}", None) for number in range(1200)])
    wanted = [f"id {number:05}" for number in range(count)]
    found = []
    for some, size in sqlite_rows.portions(wanted):
        query = f"SELECT id FROM things WHERE id IN ({sqlite_rows.places('?', size)})"
        found += [row[0] for row in db.execute(query, sqlite_rows.filled(some, size))]
    assert sorted(found) == wanted


def test_one_row_that_is_there_refuses_its_whole_statement(db):
    inserted(db, [("b", None)])
    with pytest.raises(sqlite3.IntegrityError):
        inserted(db, [("a", None), ("b", None), ("c", None)])
    assert db.execute("SELECT id FROM things").fetchall() == [("b",)]


def test_statements_have_few_forms():
    sizes = {size for count in range(1, 1025) for _, size in sqlite_rows.portions(range(count))}
    assert sizes == set(sqlite_rows.SIZES)


def test_nothing_needs_no_statement():
    assert list(sqlite_rows.portions([])) == []
