"""A page as a short range of one index, so that its cost depends neither on what is before it nor after.

Left alone, the planners of PostgreSQL and MariaDB gamble: they read another index in the wanted order and
filter, since a page's worth of rows ought to turn up soon. It does not when the rows are old or rare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Index, Select, Table, UniqueConstraint, and_, literal, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

START = 500
"""Characters of a long text that an index of PostgreSQL has: its entries are at most 2,704 bytes."""


class Start(GenericFunction[str]):
    """The part of a long text that is in an index: the first characters on PostgreSQL, else all."""

    inherit_cache = True
    name = "fn_start"


@compiles(Start)
def _all(element: Start, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(Start, "postgresql")
def _first(element: Start, compiler: SQLCompiler, **kw: Any) -> str:
    return f"left({compiler.process(element.clauses, **kw)}, {START})"


def long_is(column: Column[Any], value: str) -> ColumnElement[bool]:
    """That the long text *column* is *value*, found by an index."""
    return and_(Start(column) == Start(literal(value, column.type)), column == value)


def seek(
    query: Select[Any],
    dialect: str,
    fixed: Sequence[tuple[Column[Any], str]],
    key: Column[Any],
    *more: Column[Any],
    from_: str = "",
    below: str = "",
    newest_first: bool = False,
    long: bool = False,
) -> Select[Any]:
    """*query* ordered by *key* and *more*, of rows with the values *fixed* and a key in [*from_*, *below*).

    There is an index on the columns of *fixed* in their order, then *key* and *more*. *dialect* is
    SQLAlchemy's name of it. A *long* key is not the last of that index, but its ``Start`` is.
    """
    if long and dialect == "postgresql":
        bound = [*(value for _, value in fixed), Start(literal(from_, key.type))]
        row = [*(column for column, _ in fixed), Start(key)]
        first, value = fixed[0]
        near = (first.between(value, value), tuple_(*row) >= tuple_(*bound), *(c == v for c, v in fixed))
        return query.where(*near).order_by(*row, key)
    columns = [*(column for column, _ in fixed), key, *more]
    values = [value for _, value in fixed]
    if dialect == "postgresql" and fixed:
        # All columns are ordered by and bounded together, as rows: only this index has that order. A column
        # that is equal to one value would drop out of it, and the primary key be good enough.
        order: list[Column[Any]] = columns
        start, end = ([*values, bound] if bound else values for bound in (from_, below))
        upper = tuple_(*columns[: len(end)])
        conditions = [
            columns[0].between(values[0], values[0]),  # what the number of rows is estimated by
            tuple_(*columns[: len(start)]) >= tuple_(*start),
            upper < tuple_(*end) if below else upper <= tuple_(*end),
        ]
    else:
        order = [key, *more]
        conditions = [column == value for column, value in fixed]
        conditions += [key >= from_] if from_ else []
        conditions += [key < below] if below else []
    if dialect == "mysql":
        query = query.with_hint(key.table, f"FORCE INDEX ({_index_on(columns)})")
    return query.where(*conditions).order_by(*[column.desc() if newest_first else column for column in order])


def _index_on(columns: Sequence[Column[Any]]) -> str:
    """The name of the index that is on just these columns."""
    table = columns[0].table
    assert isinstance(table, Table)
    if list(table.primary_key) == list(columns):
        return "PRIMARY"
    found: list[Index | UniqueConstraint] = list(table.indexes)
    found += [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    return next(str(one.name) for one in found if list(one.columns) == list(columns))
