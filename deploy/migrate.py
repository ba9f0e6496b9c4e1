"""``fn-node migrate``: brings the databases of the settings to a schema, or shows what that would do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services import urls
from services.datastore import dialects, migrate
from services.datastore.database import explained, open_unmigrated
from services.stores import StoreSettings
from shared_models.env import InvalidSettings, read
from shared_models.errors import FnError

CURRENT, BEHIND = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for. *to* is a revision; empty: the newest.

    *check* and *sql* change nothing; *yes* allows a downgrade, which drops what it does not know.
    """

    check: bool = False
    sql: bool = False
    to: str = ""
    yes: bool = False


def run(environ: Mapping[str, str], order: Order) -> int:
    """Carries out *order* and prints what it did; answers the exit code.

    Raises InvalidSettings, ValueError for a bad order, FnError for a database that cannot be used.
    """
    problems: list[str] = []
    settings = read(StoreSettings, environ, problems)
    if problems:
        raise InvalidSettings(problems)
    known = migrate.revisions()
    if order.to and order.to not in known:
        raise InvalidSettings([f"there is no revision {order.to}; there are {', '.join(known)}"])
    return asyncio.run(_all(_databases(settings), order))


def _databases(settings: StoreSettings) -> dict[str, str]:
    """URLs by the variable that names them, each database once.

    The queue in a SQLite file has a format of its own, and looks after it.
    """
    found = {"FN_DB_URL": settings.datastore_url}
    for variable, url in (("FN_LOGSTORE_URL", settings.logstore_url), ("FN_MQ_URL", settings.queue_url)):
        scheme = url.partition("://")[0]
        servers = ("postgres", "postgresql", "mysql", "mariadb")
        files = ("sqlite", "sqlite3") if variable == "FN_LOGSTORE_URL" else ()
        if scheme in (*servers, *files) and url not in found.values():
            found[variable] = url
    return found


async def _all(databases: Mapping[str, str], order: Order) -> int:
    code = CURRENT
    for variable, url in databases.items():
        code = max(code, await _one(variable, url, order))
    return code


async def _one(variable: str, url: str, order: Order) -> int:
    address = urls.parse(url, variable, dialects.SCHEMES)
    target = order.to or migrate.newest()
    looks = order.check or order.sql
    if looks and address.scheme == "sqlite" and not await asyncio.to_thread(Path(address.path).is_file):
        url = "sqlite://"  # a look makes no file
    async with open_unmigrated(url, variable) as backend:
        with explained(url, variable, backend.port):
            before = await migrate.revision_of(backend)
            if order.sql:
                print(f"-- {variable} {address}: {before} -> {target}")
                print(await migrate.statements(backend, target), end="")
                return CURRENT
            if order.check:
                done = before == target or (not order.to and migrate.is_up_to_date(before))
                print(
                    f"{variable} {address}: {before}, {'current' if done else f'to be migrated to {target}'}"
                )
                return CURRENT if done else BEHIND
            if migrate.is_ahead(before, target) and not order.yes:
                raise FnError(
                    f"{variable} {address}: a downgrade from {before} to {target} drops tables or columns "
                    "with what is in them; say --yes if that is meant"
                )
            before, after = await migrate.migrate(backend, target)
            print(
                f"{variable} {address}: {before} -> {after}"
                if before != after
                else f"{variable} {address}: {after}, nothing to do"
            )
    return CURRENT
