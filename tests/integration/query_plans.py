"""What a database says about how it would run a statement, and what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event

from services.datastore.database import Database

Statement = tuple[str, Any]
"""A statement as the driver is given it, with its parameters."""

_EXPLAIN = {
    "sqlite": "EXPLAIN QUERY PLAN",
    "postgresql": "EXPLAIN (FORMAT JSON)",
    "mysql": "EXPLAIN FORMAT=JSON",
}


@dataclass
class Plan:
    """*seeks*: columns whose values bound what is read; *wrong*: full scans and sorts; *said*: all of it."""

    said: str
    seeks: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def captured(database: Database) -> Iterator[list[Statement]]:
    """The queries that *database* is sent meanwhile."""
    engine = database._file._engine if database._file else database._engine.sync_engine
    found: list[Statement] = []

    def note(_connection: Any, _cursor: Any, text: str, parameters: Any, _context: Any, many: bool) -> None:
        if text.startswith(("SELECT", "WITH")) and "FROM" in text and not many:
            found.append((text, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def plan_of(database: Database, statement: Statement) -> Plan:
    """How *database* would run *statement*, by what it knows of its tables now."""
    text, parameters = statement

    async def ask(connection: Any) -> tuple[str, Sequence[Any]]:
        dialect = connection.dialect.name
        answer = await connection.exec_driver_sql(f"{_EXPLAIN[dialect]} {text}", parameters)
        return dialect, answer.all()

    dialect, rows = await database.read(ask)
    return {"sqlite": _sqlite, "postgresql": _postgres, "mysql": _mysql}[dialect](rows)


def _sqlite(rows: Sequence[Any]) -> Plan:
    details = [row[3] for row in rows]
    plan = Plan(said="\n".join(details))
    for detail in details:
        if detail.startswith("SCAN") or "TEMP B-TREE" in detail:
            plan.wrong.append(detail)
        for bounds in re.findall(r"\(([^()]*)\)", detail):
            plan.seeks.update(re.findall(r"(\w+)[=<>]", bounds))
    return plan


def _postgres(rows: Sequence[Any]) -> Plan:
    said = rows[0][0] if not isinstance(rows[0][0], str) else json.loads(rows[0][0])
    plan = Plan(said=json.dumps(said, indent=1))
    for node in _objects(said):
        kind = node.get("Node Type", "")
        # Rows of one start of a long text are sorted among themselves; they are few.
        few = any('"left"' in key for key in node.get("Presorted Key", ()))
        if kind == "Seq Scan" or (kind.endswith("Sort") and not few):
            plan.wrong.append(kind)
        bounds = re.sub(r"'[^']*'", "", node.get("Index Cond", ""))
        plan.seeks.update(set(re.findall(r"[a-z_]+", bounds)) - {"text"})
    return plan


def _mysql(rows: Sequence[Any]) -> Plan:
    said = json.loads(rows[0][0])
    plan = Plan(said=json.dumps(said, indent=1))
    for node in _objects(said):
        if node.get("access_type") == "ALL":
            plan.wrong.append("access_type ALL")
        if "filesort" in node or "temporary_table" in node:
            plan.wrong.append("filesort")
        if node.get("access_type") != "index":  # which reads an index from its end on
            plan.seeks.update(node.get("used_key_parts", ()))
    return plan


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """*value* and what is in it, as far as it is a JSON object."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner)
