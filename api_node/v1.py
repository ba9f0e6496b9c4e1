"""What the handlers of the v1 API share: bodies in an envelope, apps by name, names of 30 bytes.

Source: api/server of Fn 0.3.484. A redirect or a 404 of its router is web.py's matter.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from shared_models import errors, times, wire
from shared_models.app import App, check_v1_syslog_url
from shared_models.errors import InvalidJSON
from shared_models.interfaces import Datastore
from shared_models.route import Route
from shared_models.web import read_body

MAX_NAME_BYTES = 30
"""Longest app name that v1 makes; it finds those of up to 255 bytes that v2 made."""

Resource = TypeVar("Resource", App, Route)


class _AppEnvelope(msgspec.Struct, frozen=True):
    app: App | None = None


class _RouteEnvelope(msgspec.Struct, frozen=True):
    route: Route | None = None


async def app_in(request: web.Request) -> App:
    """The app in the body; raises InvalidJSON, AppMissing, InvalidSyslogURL."""
    app = wire.decode(await read_body(request), _AppEnvelope).app
    if app is None:
        raise errors.AppMissing
    return _timed(app)


async def route_in(request: web.Request) -> Route:
    """The route in the body; raises InvalidJSON, RouteMissing."""
    route = wire.decode(await read_body(request), _RouteEnvelope).route
    if route is None:
        raise errors.RouteMissing
    return _timed(route)


def app_name(request: web.Request) -> str:
    """The app's name in the path; raises AppMissingNameInPath."""
    name = request.match_info["app"]
    if not name:
        raise errors.AppMissingNameInPath
    return name


async def app_id(request: web.Request, store: Datastore) -> str:
    """The id of the app in the path; raises AppNotFound."""
    return await store.app_id(app_name(request))


async def new_app(store: Datastore, app: App) -> App:
    """Inserts *app* by the rules of v1."""
    if not app.id:
        if len(app.name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
            raise errors.AppNameTooLongForV1
        check_syslog_url(app)
    return await store.insert_app(app)


async def app_id_made(request: web.Request, store: Datastore) -> str:
    """The id of the app in the path, which is made when there is none."""
    name = app_name(request)
    try:
        return await store.app_id(name)
    except errors.AppNotFound:
        try:
            return (await new_app(store, App(name=name))).id
        except errors.AppExists:
            return await store.app_id(name)


def check_syslog_url(app: App) -> None:
    """Raises InvalidSyslogURL for an address that v1 does not take."""
    if app.syslog_url:
        check_v1_syslog_url(app.syslog_url)


def _timed(value: Resource) -> Resource:
    """*value*, whose times are ignored but must be times; raises InvalidJSON."""
    for text in (value.created_at, value.updated_at):
        try:
            times.normalise(text or times.NEVER)
        except ValueError as exc:
            raise InvalidJSON(str(exc)) from None
    return value
