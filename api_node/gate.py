"""Who may ask what of an API node: each row of the URL table says what it needs, and whose app it is about.

Where nobody is told apart, everybody may do everything, as with Fn. Changes are noted in the log either way.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from api_node.auth import RunnerAuth, authorization
from shared_models import access
from shared_models.access import ANYBODY, Action, Authenticator, Principal
from shared_models.answers import one_line
from shared_models.errors import FnError, NotFound, Unauthorized
from shared_models.interfaces import Datastore

log = logging.getLogger(__name__)

Scope = Callable[[web.Request], Awaitable[str | None]]
"""The name of the app that a request is about; None: about all of them. Raises NotFound."""
_asking: ContextVar[Principal] = ContextVar("asking", default=ANYBODY)
_NAMED = ("id", "name", "path", "call_id")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a row of the URL table needs. Without a *scope* its handler asks ``permit``, or shows less."""

    action: Action
    scope: Scope | None


class Gate:
    """Puts handlers behind the question who asks; *authenticator* None: anybody may."""

    def __init__(self, authenticator: Authenticator | None, runners: RunnerAuth) -> None:
        self._authenticator = authenticator
        self._runners = runners

    def reads(self, handler: Handler, scope: Scope | None) -> Handler:
        """*handler* shows something."""
        return self._behind(handler, Needs(Action.READ, scope))

    def changes(self, handler: Handler, scope: Scope | None) -> Handler:
        """*handler* changes something."""
        return self._behind(handler, Needs(Action.CHANGE, scope))

    def operates(self, handler: Handler, scope: Scope | None) -> Handler:
        """*handler* is for those who run the cluster."""
        return self._behind(handler, Needs(Action.OPERATE, scope))

    def reads_as_runner(self, handler: Handler, scope: Scope | None) -> Handler:
        """As ``reads``; runner nodes, who have a token of their own, may as well."""
        return self._behind(handler, Needs(Action.READ, scope), runners=True)

    def _behind(self, handler: Handler, needs: Needs, *, runners: bool = False) -> Handler:
        @functools.wraps(handler)
        async def behind(request: web.Request) -> web.StreamResponse:
            if runners and self._authenticator and self._runners.lets_in(request):
                return await handler(request)
            principal = ANYBODY
            try:
                if self._authenticator:
                    principal = await self._authenticator.who(authorization(request))
                    await _refuse(principal, needs, request)
                answer = await _as(principal, handler, request)
            except Unauthorized:
                raise  # not noted: those who are not known must not fill the log
            except FnError as exc:
                _note(needs, principal, request, f"{exc.code} {exc.message}")
                raise
            except Exception:
                _note(needs, principal, request, "500, it may have been done")
                raise
            _note(needs, principal, request, f"{answer.status}{_made(answer)}")
            return answer

        vars(behind)["needs"] = needs
        return behind


async def _refuse(principal: Principal, needs: Needs, request: web.Request) -> None:
    """Raises Forbidden, in the same words for what is not theirs and for what does not exist."""
    if needs.action not in access.MAY[principal.role]:
        access.refuse(principal, needs.action, None)
    if needs.scope is None or principal.has_every_app:
        return
    try:
        name = await needs.scope(request)
    except NotFound:
        name = ""
    access.refuse(principal, needs.action, name)


async def _as(principal: Principal, handler: Handler, request: web.Request) -> web.StreamResponse:
    # One task serves all requests of a connection, and each may have another token.
    before = _asking.set(principal)
    try:
        return await handler(request)
    finally:
        _asking.reset(before)


def asking() -> Principal:
    """Who asks, in a handler behind the gate."""
    return _asking.get()


def permit(app_name: str) -> None:
    """For a handler that learns from the body whose app it changes; raises Forbidden."""
    access.refuse(asking(), Action.CHANGE, app_name)


async def permit_app(store: Datastore, app_id: str) -> None:
    """As ``permit``, of the app with that id; one that does not exist is one that is not theirs."""
    if not asking().has_every_app:
        try:
            name = (await store.app(app_id)).name
        except NotFound:
            name = ""
        permit(name)


# -- the log of changes ------------------------------------------------------------------------


def _note(needs: Needs, principal: Principal, request: web.Request, outcome: str) -> None:
    if needs.action == Action.READ:
        return
    log.info(
        "%s (%s) from %s: %s %s: %s",
        one_line(principal.name, 128),
        principal.role if principal is not ANYBODY else "no token",
        request.remote or "somewhere",
        request.method,
        one_line(request.raw_path, 300),
        one_line(outcome, 300),
    )


def _made(answer: web.StreamResponse) -> str:
    """What an answer says of the resource that it is about: its id and name."""
    body = answer.body if isinstance(answer, web.Response) else None
    if not isinstance(body, bytes) or len(body) > 1 << 20:
        return ""
    try:
        found = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        return ""
    for envelope in ("app", "route"):
        if isinstance(inner := found.get(envelope), dict):
            found = inner
    return "".join(f" {key}={found[key]}" for key in _NAMED if isinstance(found.get(key), str))
