"""Who may call functions, and how often: private functions, tokens that no function sees, rates of apps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from aiohttp import web
from multidict import CIMultiDictProxy

from runner_node.calls import Target
from runner_node.protocols.http_stream import Header
from runner_node.rates import Rates
from shared_models import access
from shared_models.access import Action, Authenticator, Principal
from shared_models.app import App
from shared_models.env import env, number, one_of
from shared_models.errors import Unauthorized
from shared_models.workers import ALONE, Place

AUTHORIZATION = "Authorization"
NOBODY_KNOWN = (
    "This function is private, and this node knows no tokens: set FN_API_TOKENS or FN_OIDC_ISSUER on it"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Of the callers of functions."""

    invoke_auth: str = env(
        "FN_INVOKE_AUTH",
        "function",
        "whose callers need a token: function for those of functions, routes and apps that say so with the "
        "annotation fn.hybrid/invoke/auth, always for all",
        parse=one_of("function", "always"),
    )
    app_rate_limit: float = env(
        "FN_APP_RATE_LIMIT",
        0.0,
        "calls of one app that this runner node takes, where the app says nothing with the annotation "
        "fn.hybrid/rate-limit/per-second; more are answered 429; 0: no limit",
        unit="1/s",
        parse=number,
    )


class Guard:
    """Of the worker at *place*. Without an *authenticator* nobody may call what is private."""

    def __init__(
        self,
        authenticator: Authenticator | None = None,
        settings: GuardSettings | None = None,
        place: Place = ALONE,
    ) -> None:
        settings = settings or GuardSettings()
        self._authenticator = authenticator
        self._always = settings.invoke_auth == "always"
        self._rates = Rates(settings.app_rate_limit, place)
        self.watches = bool(authenticator or self._always or settings.app_rate_limit)
        """Whether calls are looked at that are neither private nor of an app with a rate of its own."""

    async def visit(self, request: web.Request) -> Visit:
        """The first step of a call, before anything is looked up for it; raises what ``who`` raises."""
        return Visit(self, request, await self.who(request.headers) if self._always else None)

    async def who(self, headers: CIMultiDictProxy[str]) -> Principal:
        """Raises what Authenticator.who raises."""
        if self._authenticator is None:
            raise Unauthorized(NOBODY_KNOWN)
        return await self._authenticator.who(_header(headers))

    def at_once(self, headers: CIMultiDictProxy[str], target: Target, app: App) -> Iterable[Header] | None:
        """What the function may see of *headers*; None when the call must go the ordinary way, uncounted."""
        theirs: Iterable[Header] = headers.items()
        if self._always or target.private:
            principal = self._authenticator.known(_header(headers)) if self._authenticator else None
            if principal is None or not access.may(principal, Action.INVOKE, app.name):
                return None
            theirs = without_token(theirs)
        elif AUTHORIZATION in headers:
            theirs = self.passed_on(headers)
        return theirs if self._rates.has_room(app) else None

    def passed_on(self, headers: CIMultiDictProxy[str]) -> Iterable[Header]:
        """*headers* of a caller that needs no token, without one of ours: some clients send it everywhere."""
        known, items = self._authenticator, headers.items()
        if known and any(known.ours(value) for value in headers.getall(AUTHORIZATION, ())):
            return without_token(items)
        return items

    def count(self, app: App) -> None:
        """One more call of *app*; raises RateLimited."""
        self._rates.count(app)


class Visit:
    """A call on its ordinary way."""

    def __init__(self, guard: Guard, request: web.Request, principal: Principal | None) -> None:
        self._guard = guard
        self._request = request
        self._principal = principal

    async def admitted(self, app: App, *, private: bool) -> Iterable[Header]:
        """What the function may see of the request's headers.

        Raises Unauthorized, Forbidden, IssuerUnavailable, RateLimited.
        """
        headers = self._request.headers
        principal = self._principal
        if private and principal is None:
            principal = await self._guard.who(headers)
        if principal is None:
            self._guard.count(app)
            return self._guard.passed_on(headers)
        access.refuse(principal, Action.INVOKE, app.name)
        self._guard.count(app)
        return without_token(headers.items())


def without_token(headers: Iterable[Header]) -> list[Header]:
    """*headers* without what says who sends them."""
    return [header for header in headers if header[0].lower() != "authorization"]


def _header(headers: CIMultiDictProxy[str]) -> str:
    given = headers.getall(AUTHORIZATION, ())
    # Of two nobody knows which one counts.
    return given[0] if len(given) == 1 else ""
