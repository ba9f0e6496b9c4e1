"""Every exception of the SQL drivers, and what each is taken for; a new one fails here first."""

from __future__ import annotations

import inspect
import ssl
from typing import Any

import asyncpg.exceptions
import pymysql.err  # type: ignore[import-untyped]
import pytest
from sqlalchemy import exc as sql

from services import urls
from services.datastore.failures import Meaning, explain, known, meaning, words

# By class of SQLSTATE; those that differ within a class by their own.
UNAVAILABLE = (
    "01 02 03 09 0A 0B 0F 0L 0P 0Z 10 20 21 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F 42 44 53 55 57 58 "
    "72 F0 HV P0 XX"
)
POSTGRES = {
    **dict.fromkeys(UNAVAILABLE.split(), Meaning.UNAVAILABLE),
    "08": Meaning.LOST,
    "22": Meaning.INVALID,
    "23": Meaning.TAKEN,
    "40": Meaning.AGAIN,
    "54": Meaning.INVALID,
    "25P03": Meaning.LOST,
    "40003": Meaning.LOST,
    "57P01": Meaning.LOST,
    "57P02": Meaning.LOST,
    "57P03": Meaning.LOST,
    "57P05": Meaning.LOST,
}
# Without a SQLSTATE: asyncpg's own, and bases that nobody raises.
POSTGRES_OTHERS = {
    "ClientConfigurationError",
    "FatalPostgresError",
    "InterfaceError",
    "InterfaceWarning",
    "InternalClientError",
    "OutdatedSchemaCacheError",
    "PostgresError",
    "ProtocolError",
    "TargetServerAttributeNotMatched",
    "UnknownPostgresError",
    "UnsupportedClientFeatureError",
    "UnsupportedServerFeatureError",
}
MYSQL_OTHERS = (
    "DatabaseError Error InterfaceError InternalError MySQLError NotSupportedError OperationalError "
    "ProgrammingError Warning"
)
MYSQL = {
    "IntegrityError": Meaning.TAKEN,
    "DataError": Meaning.INVALID,
    **dict.fromkeys(MYSQL_OTHERS.split(), Meaning.UNAVAILABLE),
}
MYSQL_NUMBERS = {
    1205: Meaning.AGAIN,
    1213: Meaning.AGAIN,
    1062: Meaning.TAKEN,
    1451: Meaning.TAKEN,
    1452: Meaning.TAKEN,
    2006: Meaning.LOST,
    2013: Meaning.LOST,
    1053: Meaning.LOST,
    1927: Meaning.LOST,
    1153: Meaning.INVALID,
    1264: Meaning.INVALID,
    1366: Meaning.INVALID,
    1406: Meaning.INVALID,
    1021: Meaning.UNAVAILABLE,  # disk full
    1040: Meaning.UNAVAILABLE,  # too many connections
    1045: Meaning.UNAVAILABLE,
    1049: Meaning.UNAVAILABLE,
    1114: Meaning.UNAVAILABLE,  # table full
    1146: Meaning.UNAVAILABLE,
    1290: Meaning.UNAVAILABLE,  # read only
    2003: Meaning.UNAVAILABLE,
}
ADDRESS = urls.parse("mysql://fn:hidden@db:3307/calls", "FN_DB_URL", ("mysql",))


def _exceptions(module: Any) -> list[type[BaseException]]:
    return [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, BaseException) and value.__module__.startswith(module.__name__.split(".")[0])
    ]


@pytest.mark.parametrize("kind", _exceptions(asyncpg.exceptions), ids=lambda kind: kind.__name__)
def test_what_asyncpg_raises_is_known(kind: type[BaseException]) -> None:
    failure = kind("said")
    assert known(failure)
    state = getattr(kind, "sqlstate", None)
    if kind.__name__ == "InvalidCachedStatementError":
        assert meaning(failure) is Meaning.AGAIN
    elif state is None:
        assert kind.__name__ in POSTGRES_OTHERS
        assert meaning(failure) is Meaning.UNAVAILABLE
    else:
        assert meaning(failure) is POSTGRES.get(state, POSTGRES.get(state[:2])), state


@pytest.mark.parametrize("kind", _exceptions(pymysql.err), ids=lambda kind: kind.__name__)
def test_what_pymysql_raises_is_known(kind: type[BaseException]) -> None:
    wrapped = sql.DBAPIError.instance("SELECT 1", None, kind(9999, "said"), pymysql.err.Error)
    assert kind.__name__ in MYSQL
    assert known(kind(9999, "said"))
    if isinstance(wrapped, sql.DBAPIError):
        assert meaning(wrapped) is MYSQL[kind.__name__]


@pytest.mark.parametrize("number", MYSQL_NUMBERS)
def test_what_mysql_numbers_is_known(number: int) -> None:
    assert meaning(pymysql.err.OperationalError(number, "said")) is MYSQL_NUMBERS[number]


def test_the_numbers_that_pymysql_itself_tells_apart_mean_what_it_says() -> None:
    for number, kind in pymysql.err.error_map.items():
        wrapped = sql.DBAPIError.instance("SELECT 1", None, kind(number, "said"), pymysql.err.Error)
        assert isinstance(wrapped, sql.DBAPIError)
        if kind is pymysql.err.IntegrityError:
            assert meaning(wrapped) is Meaning.TAKEN
        if kind is pymysql.err.DataError:
            assert meaning(wrapped) is Meaning.INVALID


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (pymysql.err.OperationalError(1045, "Access denied"), "refuses user 'fn'"),
        (pymysql.err.OperationalError(1049, "Unknown database"), "CREATE DATABASE calls"),
        (ConnectionRefusedError(111, "refused"), "is it running?"),
        (TimeoutError(), "does not answer in time"),
        (ssl.SSLError(1, "certificate verify failed"), "TLS failed"),
        (pymysql.err.OperationalError(1040, "Too many\nconnections"), "Too many connections"),
    ],
)
def test_a_database_that_cannot_be_opened_is_told_in_one_line(failure: Exception, said: str) -> None:
    line = explain(failure, ADDRESS, 3307, "FN_DB_URL")
    assert said in line
    assert "db:3307" in line
    assert "FN_DB_URL" in line or "CREATE DATABASE" in line or "TLS" in line
    assert "\n" not in line
    assert "hidden" not in line


def test_the_words_of_a_driver_are_one_line() -> None:
    assert words(pymysql.err.OperationalError(1040, "Too\nmany")) == "Too many"
    assert words(TimeoutError()) == "no answer in time"
