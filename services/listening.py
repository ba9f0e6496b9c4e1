"""A datastore that asks listeners before its verbs and tells them after. Same contract."""

from __future__ import annotations

import dataclasses

from services.stores import Stores
from shared_models.app import App
from shared_models.errors import RouteNotFound
from shared_models.fn import Fn
from shared_models.interfaces import AppFilter, Datastore, FnFilter, Purge, RouteFilter, TriggerFilter
from shared_models.listeners import Listeners
from shared_models.route import Route
from shared_models.runner import Runner, RunnerReport, RunnerState
from shared_models.trigger import Trigger
from shared_models.wanted import Change, WarmTarget


def listening(stores: Stores, listeners: Listeners) -> Stores:
    """*stores* whose datastore has *listeners* on it."""
    return dataclasses.replace(stores, datastore=ListeningDatastore(stores.datastore, listeners))


class ListeningDatastore(Datastore):
    """*inner* with *listeners* on it, which may still grow. Without listeners nothing more is looked up."""

    def __init__(self, inner: Datastore, listeners: Listeners) -> None:
        self._inner = inner
        self._listeners = listeners

    # -- apps ----------------------------------------------------------------------------------

    async def app_id(self, name: str) -> str:
        return await self._inner.app_id(name)

    async def app(self, app_id: str) -> App:
        return await self._inner.app(app_id)

    async def apps(self, page: AppFilter) -> list[App]:
        return await self._inner.apps(page)

    async def insert_app(self, app: App) -> App:
        created = await self._inner.insert_app(await self._listeners.apps.before_create(app))
        await self._listeners.apps.after_create(created)
        return created

    async def update_app(self, app_id: str, change: App) -> App:
        if listeners := self._listeners.apps:
            change = await listeners.before_update(await self._inner.app(app_id), change)
        updated = await self._inner.update_app(app_id, change)
        await listeners.after_update(updated)
        return updated

    async def remove_app(self, app_id: str) -> None:
        if not (listeners := self._listeners.apps):
            return await self._inner.remove_app(app_id)
        app = await self._inner.app(app_id)
        await listeners.before_delete(app)
        await self._inner.remove_app(app_id)
        await listeners.after_delete(app)

    # -- functions -----------------------------------------------------------------------------

    async def fn(self, fn_id: str) -> Fn:
        return await self._inner.fn(fn_id)

    async def fns(self, page: FnFilter) -> list[Fn]:
        return await self._inner.fns(page)

    async def insert_fn(self, fn: Fn) -> Fn:
        created = await self._inner.insert_fn(await self._listeners.fns.before_create(fn))
        await self._listeners.fns.after_create(created)
        return created

    async def update_fn(self, fn_id: str, change: Fn) -> Fn:
        if listeners := self._listeners.fns:
            change = await listeners.before_update(await self._inner.fn(fn_id), change)
        updated = await self._inner.update_fn(fn_id, change)
        await listeners.after_update(updated)
        return updated

    async def remove_fn(self, fn_id: str) -> None:
        if not (listeners := self._listeners.fns):
            return await self._inner.remove_fn(fn_id)
        fn = await self._inner.fn(fn_id)
        await listeners.before_delete(fn)
        await self._inner.remove_fn(fn_id)
        await listeners.after_delete(fn)

    # -- triggers ------------------------------------------------------------------------------

    async def trigger(self, trigger_id: str) -> Trigger:
        return await self._inner.trigger(trigger_id)

    async def trigger_by_source(self, app_id: str, type_: str, source: str) -> Trigger:
        return await self._inner.trigger_by_source(app_id, type_, source)

    async def triggers(self, page: TriggerFilter) -> list[Trigger]:
        return await self._inner.triggers(page)

    async def insert_trigger(self, trigger: Trigger) -> Trigger:
        created = await self._inner.insert_trigger(await self._listeners.triggers.before_create(trigger))
        await self._listeners.triggers.after_create(created)
        return created

    async def update_trigger(self, trigger_id: str, change: Trigger) -> Trigger:
        if listeners := self._listeners.triggers:
            change = await listeners.before_update(await self._inner.trigger(trigger_id), change)
        updated = await self._inner.update_trigger(trigger_id, change)
        await listeners.after_update(updated)
        return updated

    async def remove_trigger(self, trigger_id: str) -> None:
        if not (listeners := self._listeners.triggers):
            return await self._inner.remove_trigger(trigger_id)
        trigger = await self._inner.trigger(trigger_id)
        await listeners.before_delete(trigger)
        await self._inner.remove_trigger(trigger_id)
        await listeners.after_delete(trigger)

    # -- routes --------------------------------------------------------------------------------

    async def route(self, app_id: str, path: str) -> Route:
        return await self._inner.route(app_id, path)

    async def routes(self, page: RouteFilter) -> list[Route]:
        return await self._inner.routes(page)

    async def insert_route(self, route: Route) -> Route:
        created = await self._inner.insert_route(await self._listeners.routes.before_create(route))
        await self._listeners.routes.after_create(created)
        return created

    async def update_route(self, app_id: str, path: str, change: Route) -> Route:
        if listeners := self._listeners.routes:
            change = await listeners.before_update(await self._inner.route(app_id, path), change)
        updated = await self._inner.update_route(app_id, path, change)
        await listeners.after_update(updated)
        return updated

    async def put_route(self, route: Route) -> tuple[Route, bool]:
        """Asked as an update or a create, whichever it would be now; told as what it was."""
        if listeners := self._listeners.routes:
            try:
                stored = await self._inner.route(route.app_id, route.path)
            except RouteNotFound:
                route = await listeners.before_create(route)
            else:
                route = await listeners.before_update(stored, route)
        put, new = await self._inner.put_route(route)
        await (listeners.after_create(put) if new else listeners.after_update(put))
        return put, new

    async def remove_route(self, app_id: str, path: str) -> None:
        if not (listeners := self._listeners.routes):
            return await self._inner.remove_route(app_id, path)
        route = await self._inner.route(app_id, path)
        await listeners.before_delete(route)
        await self._inner.remove_route(app_id, path)
        await listeners.after_delete(route)

    # -- what runners are to have ready ----------------------------------------------------------

    async def changes(self, since: str, limit: int) -> list[Change]:
        return await self._inner.changes(since, limit)

    async def warm(self, limit: int) -> list[WarmTarget]:
        return await self._inner.warm(limit)

    # -- runners -------------------------------------------------------------------------------

    async def put_runner(self, report: RunnerReport) -> RunnerState:
        return await self._inner.put_runner(report)

    async def runners(self) -> list[Runner]:
        return await self._inner.runners()

    async def set_runner_state(self, runner_id: str, state: RunnerState) -> Runner:
        return await self._inner.set_runner_state(runner_id, state)

    # -- cleaning up ---------------------------------------------------------------------------

    async def insert_purge(self, purge: Purge) -> Purge:
        return await self._inner.insert_purge(purge)

    async def purges(self, limit: int) -> list[Purge]:
        return await self._inner.purges(limit)

    async def remove_purge(self, purge_id: str) -> None:
        await self._inner.remove_purge(purge_id)

    async def hold(self, name: str, holder: str, ttl: float) -> bool:
        return await self._inner.hold(name, holder, ttl)
