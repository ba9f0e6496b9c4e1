"""House rules: every app belongs to a team, images have versions, and failed calls are in the log."""

from __future__ import annotations

import logging
from collections import Counter

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from shared_models.app import App
from shared_models.call import Call, Status
from shared_models.errors import Invalid
from shared_models.extensions import Extension, Node
from shared_models.fn import Fn
from shared_models.interfaces import AppFilter, Datastore
from shared_models.listeners import CallListener, Listener
from shared_models.web import json_response

log = logging.getLogger(__name__)

TEAM = "house-rules/team"


def team_of(name: str) -> str:
    """The team of an app, which its name begins with; empty when it has none."""
    team, dash, _ = name.partition("-")
    return team if dash else ""


class TeamApps(Listener[App]):
    """Refuses apps without a team, and writes the team into an annotation of the others."""

    async def before_create(self, new: App) -> App:
        team = team_of(new.name)
        if not team:
            raise Invalid("App name must begin with a team, as in team-app")
        stamp = msgspec.Raw(msgspec.json.encode(team))
        return msgspec.structs.replace(new, annotations={**new.annotations, TEAM: stamp})


class VersionedImages(Listener[Fn]):
    """Refuses images that may be another one tomorrow."""

    async def before_create(self, new: Fn) -> Fn:
        self._check(new.image)
        return new

    async def before_update(self, stored: Fn, change: Fn) -> Fn:
        if change.image:  # else the image stays
            self._check(change.image)
        return change

    def _check(self, image: str) -> None:
        version = image.rpartition("/")[2].partition(":")[2]
        if version in ("", "latest"):
            raise Invalid(f"Image {image} must have a version, as in {image.partition(':')[0]}:1.0")


class FailedCalls(CallListener):
    """Says in the log of the node which calls failed."""

    async def after_call(self, call: Call) -> None:
        if call.status != Status.SUCCESS:
            log.warning("call %s of function %s: %s", call.id, call.fn_id or call.path, call.error)


class Teams:
    """The endpoint: which teams there are."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    async def list(self, request: web.Request) -> web.StreamResponse:
        """``{"teams": {"blue": 2}}``: teams and how many apps each has."""
        teams: Counter[str] = Counter()
        page = AppFilter(limit=100)
        while apps := await self._datastore.apps(page):
            teams.update(team_of(app.name) for app in apps)
            page = msgspec.structs.replace(page, after=apps[-1].name)
        return json_response({"teams": dict(sorted(teams.items()))})


@web.middleware
async def signed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer of the API says that the rules hold here."""
    response = await handler(request)
    response.headers["House-Rules"] = "in force"
    return response


def extension(node: Node) -> Extension:
    """What the entry point names."""
    if node.datastore is None:
        return Extension(call_listeners=(FailedCalls(),))
    teams = Teams(node.datastore)
    return Extension(
        app_listeners=(TeamApps(),),
        fn_listeners=(VersionedImages(),),
        call_listeners=(FailedCalls(),),
        api_middlewares=(signed,),
        endpoints=(web.get("/v2/teams", teams.list, allow_head=False),),
    )
