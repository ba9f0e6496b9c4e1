"""What is asked of the datastore for runners: what has changed lately, and what is to be kept warm."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.parts import Part
from services.datastore.rows import portions
from services.datastore.seeking import seek
from services.datastore.tables import apps, fns, routes
from shared_models import image_policy, wanted
from shared_models.annotations import Annotations
from shared_models.wanted import Change, WarmTarget

_APP = (apps.c.id, apps.c.annotations, apps.c.updated_at)


class Warm(Part):
    """Each verb reads short ranges of indexes, and no more than it answers."""

    async def changes(self, since: str, limit: int) -> list[Change]:
        async def work(connection: AsyncConnection) -> list[Change]:
            rows: list[Any] = []
            for table in (fns, routes):
                columns = table.c.updated_at, table.c.image, table.c.app_id, table.c.annotations
                query = select(*columns).limit(limit)
                query = seek(query, connection.dialect.name, [], table.c.updated_at, from_=since)
                rows += await connection.execute(query)
            of_apps: dict[str, Any] = {}
            for ids in portions(sorted({row.app_id for row in rows})):
                query = select(apps.c.id, apps.c.annotations).where(apps.c.id.in_(ids))
                of_apps |= {row.id: row.annotations for row in await connection.execute(query)}
            found = [_change(row, of_apps.get(row.app_id, {})) for row in rows]
            return sorted(found, key=lambda change: change.at)[:limit]

        return await self._database.read(work)

    async def warm(self, limit: int) -> list[WarmTarget]:
        async def work(connection: AsyncConnection) -> list[WarmTarget]:
            dialect = connection.dialect.name
            query = select(*_APP).limit(limit)
            query = seek(query, dialect, [(apps.c.warm, wanted.SOME)], apps.c.id)
            warm_apps: dict[str, Any] = {row[0]: row for row in await connection.execute(query)}
            found = []
            for table, rest in ((fns, (fns.c.id,)), (routes, ())):
                own = [(table.c.warm, wanted.SOME)]
                query = seek(_of(table).limit(limit), dialect, own, table.c.app_id, *rest)
                rows = list(await connection.execute(query))
                for app_id in warm_apps:
                    unsaid = table.c.app_id == app_id, table.c.warm == wanted.UNSAID
                    rows += await connection.execute(_of(table).where(*unsaid).limit(limit - len(rows)))
                found += rows
            others = {row.app_id for row in found} - warm_apps.keys()
            for ids in portions(sorted(others)):
                query = select(*_APP).where(apps.c.id.in_(ids))
                warm_apps |= {row[0]: row for row in await connection.execute(query)}
            return sorted(
                (_target(row, warm_apps[row.app_id]) for row in found if row.app_id in warm_apps),
                key=lambda target: (target.fn_id, target.app_id, target.path),
            )

        return await self._database.read(work)


def _of(table: Table) -> Select[Any]:
    own = (table.c.id,) if table is fns else (table.c.path,)
    return select(*own, table.c.app_id, table.c.annotations, table.c.updated_at)


def _change(row: Any, of_app: Annotations) -> Change:
    never = image_policy.pull({**of_app, **row.annotations}) == image_policy.NEVER
    return Change(at=row.updated_at, image="" if never else row.image)


def _target(row: Any, app: Any) -> WarmTarget:
    return WarmTarget(
        fn_id=getattr(row, "id", ""),
        app_id=row.app_id,
        path=getattr(row, "path", ""),
        count=wanted.count_of(app.annotations, row.annotations),
        version=wanted.version_of(row.updated_at, app.updated_at),
    )
