"""What an exception of a database driver means. No store lets one out.

PostgreSQL says it by SQLSTATE (https://www.postgresql.org/docs/15/errcodes-appendix.html), MySQL and
MariaDB by number (https://mariadb.com/kb/en/mariadb-error-codes/).
"""

from __future__ import annotations

import enum
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from sqlalchemy import exc as sql

from services import urls
from services.broken_transport import is_closed_transport


class Meaning(enum.Enum):
    """What to do about a failure."""

    AGAIN = "the transaction was rolled back for the sake of others: run it again"
    TAKEN = "a constraint is broken: somebody was faster, run it again and look"
    LOST = "the connection broke: what was not being committed may be run again"
    INVALID = "a value cannot be stored"
    UNAVAILABLE = "the database cannot do it now"


FAILURES = (sql.DBAPIError, sql.TimeoutError, OSError, sql.InvalidRequestError)
"""What SQLAlchemy and drivers raise. A driver that connects raises its own, which ``known`` knows."""

_BY_SQLSTATE = {
    "08": Meaning.LOST,
    "22": Meaning.INVALID,
    "25P03": Meaning.LOST,
    "23": Meaning.TAKEN,
    "40": Meaning.AGAIN,
    "40003": Meaning.LOST,
    "54": Meaning.INVALID,
    "57P01": Meaning.LOST,
    "57P02": Meaning.LOST,
    "57P03": Meaning.LOST,
    "57P05": Meaning.LOST,
}
_BY_NUMBER = {
    **dict.fromkeys((1020, 1205, 1213, 1412), Meaning.AGAIN),
    **dict.fromkeys((1022, 1062, 1169, 1216, 1217, 1451, 1452, 1557, 1586, 1761, 1762), Meaning.TAKEN),
    **dict.fromkeys((1053, 1158, 1159, 1160, 1161, 1927, 2006, 2013, 2014, 2055, 4031), Meaning.LOST),
    **dict.fromkeys((1153, 1264, 1265, 1292, 1366, 1406, 1690, 3988), Meaning.INVALID),
}
_WRONG_LOGIN = ("28000", "28P01", 1044, 1045, 1698)
_NO_DATABASE = ("3D000", 1049)


def known(exc: BaseException) -> bool:
    """Whether *exc* comes from below: a driver, its connection, or SQLAlchemy."""
    return (
        isinstance(exc, FAILURES)
        or is_closed_transport(exc)
        or type(exc).__module__.split(".")[0]
        in (
            "aiomysql",
            "asyncpg",
            "pymysql",
            "sqlite3",
        )
    )


def meaning(exc: BaseException) -> Meaning:
    """What *exc*, a driver's own exception or SQLAlchemy's around it, means."""
    if isinstance(exc, sql.IntegrityError):
        return Meaning.TAKEN
    if any(type(one).__name__ == "InvalidCachedStatementError" for one in _causes(exc)):
        return Meaning.AGAIN  # the schema changed under a prepared statement, which is forgotten now
    code = _code(exc)
    if isinstance(code, str):
        found = _BY_SQLSTATE.get(code) or _BY_SQLSTATE.get(code[:2])
    else:
        found = _BY_NUMBER.get(code)
    if found:
        return found
    if isinstance(exc, sql.DBAPIError) and exc.connection_invalidated:
        return Meaning.LOST
    if isinstance(exc, (ConnectionError, EOFError)) or is_closed_transport(exc):
        return Meaning.LOST
    return Meaning.INVALID if isinstance(exc, sql.DataError) else Meaning.UNAVAILABLE


def words(exc: BaseException) -> str:
    """One line of what the driver says."""
    causes = [*_causes(exc)]
    if any(isinstance(one, TimeoutError) for one in causes):
        return "no answer in time"
    first = causes[-1]
    code = _code(first)
    text = str(first.args[1]) if isinstance(code, int) and code and len(first.args) > 1 else str(first)
    return _line(text) or type(first).__name__


def explain(exc: BaseException, address: urls.Address, port: int, variable: str) -> str:
    """One line for a database that cannot be opened: the cause and the next step. Never a password."""
    if address.scheme == "sqlite":
        return f"Database: {address.path or 'in memory'} cannot be used: {words(exc)}"
    host = address.host or "localhost"
    place = f"Database: {address.scheme} at {f'[{host}]' if ':' in host else host}:{port}"
    causes = [*_causes(exc)]
    code = _code(exc)
    for one in causes:
        match one:
            case TimeoutError():
                return f"{place} does not answer in time ({variable})"
            case ssl.SSLError():
                return f"{place}: TLS failed: {_line(getattr(one, 'reason', None) or one)}"
            case socket.gaierror():
                return f"{place}: the host is not known; check {variable}"
            case ConnectionRefusedError():
                return f"{place} refuses connections: is it running? ({variable})"
    if code in _WRONG_LOGIN:
        return f"{place} refuses user {address.user!r}: check user, password and rights ({variable})"
    if code in _NO_DATABASE:
        return f"{place} has no database {address.path!r}; create it: CREATE DATABASE {address.path}"
    if "SSL" in words(exc):
        return f"{place}: TLS failed: {words(exc)} (sslmode in {variable})"
    if any(isinstance(one, OSError) and one.errno for one in causes) and "Connect call failed" in words(exc):
        return f"{place} refuses connections: is it running? ({variable})"
    return f"{place} cannot be used: {words(exc)} ({variable})"


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _code(exc: BaseException) -> str | int:
    """The SQLSTATE of PostgreSQL, or the number of MySQL; 0 for neither."""
    for one in _causes(exc):
        state: Any = getattr(one, "sqlstate", None)
        if isinstance(state, str) and state:
            return state
        ours = type(one).__module__.startswith(("pymysql", "aiomysql"))
        if ours and one.args and isinstance(one.args[0], int):
            return one.args[0]
    return 0


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """*exc* and what is behind it, outermost first."""
    seen = 0
    while exc is not None and seen < 10:
        yield exc
        seen += 1
        exc = getattr(exc, "orig", None) or exc.__cause__
