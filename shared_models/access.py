"""Who may do what: principals, their roles and apps, and the contract of whoever knows them.

Pure decisions, no I/O. ``services/identity`` knows tokens; gates and guards of nodes ask.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod

import msgspec

from shared_models.errors import Forbidden

EVERY_APP = "*"
"""In place of a list of apps: all of them, also those that are still to be made."""


class Action(enum.StrEnum):
    """What can be asked of a node. Each has the least role that may do it: ``NEEDED``."""

    READ = "read"
    CHANGE = "change"
    INVOKE = "invoke"
    OPERATE = "operate"
    """What concerns the cluster itself, such as to drain a runner node."""


class Role(enum.StrEnum):
    """What somebody may do to the apps that they have."""

    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"
    INVOKER = "invoker"


MAY: dict[Role, frozenset[Action]] = {
    Role.ADMIN: frozenset(Action),
    Role.DEVELOPER: frozenset({Action.READ, Action.CHANGE, Action.INVOKE}),
    Role.VIEWER: frozenset({Action.READ}),
    Role.INVOKER: frozenset({Action.INVOKE}),
}
NEEDED: dict[Action, Role] = {
    Action.READ: Role.VIEWER,
    Action.CHANGE: Role.DEVELOPER,
    Action.INVOKE: Role.INVOKER,
    Action.OPERATE: Role.ADMIN,
}


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is known. *apps* are names; None: all apps. An admin has them all."""

    name: str
    role: Role
    apps: frozenset[str] | None

    @property
    def has_every_app(self) -> bool:
        """Whether no app is closed to them."""
        return self.apps is None or self.role == Role.ADMIN


ANYBODY = Principal(name="anybody", role=Role.ADMIN, apps=None)
"""Who asks where nobody is told apart."""


def may(principal: Principal, action: Action, app_name: str | None) -> bool:
    """Whether *principal* may do *action* to the app of that name; None: to what all apps share."""
    if action not in MAY[principal.role]:
        return False
    # No app has the name "", which stands for one that does not exist.
    return principal.has_every_app or (bool(app_name) and app_name in (principal.apps or ()))


def refuse(principal: Principal, action: Action, app_name: str | None) -> None:
    """Raises Forbidden unless *principal* may do it.

    The words are the same for an app that is not theirs and for one that does not exist.
    """
    if may(principal, action, app_name):
        return
    needed, name = NEEDED[action], principal.name
    if action not in MAY[principal.role]:
        raise Forbidden(f"This needs the role {needed}, and {name} has the role {principal.role}")
    what = "for all apps" if app_name is None else "for this app"
    raise Forbidden(f"This needs the role {needed} {what}, and {name} has it for others")


class Authenticator(ABC):
    """Tells who sent an ``Authorization`` header. Safe concurrently."""

    @abstractmethod
    async def who(self, header: str) -> Principal:
        """Raises Unauthorized for none, an unknown or an expired token.

        Forbidden for a good one that names no role, IssuerUnavailable while nobody can tell.
        """

    @abstractmethod
    def known(self, header: str) -> Principal | None:
        """As ``who``, at once; None when ``who`` must be asked."""

    @abstractmethod
    def ours(self, header: str) -> bool:
        """Whether the token, valid or not, is one for this platform: then no function may see it. At once."""
