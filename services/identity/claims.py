"""From the claims of a token that was found good to a principal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.identity.settings import IdentitySettings
from shared_models.access import EVERY_APP, Principal, Role
from shared_models.errors import Forbidden

_STRONGEST = tuple(Role)
_NAME = 128


def principal_of(claims: Mapping[str, Any], settings: IdentitySettings) -> Principal:
    """Raises Forbidden where no role is named. An admin has all apps, whatever is said of them."""
    name = _printable(str(claims.get("sub", "")))
    named = _words(_claim(claims, settings.role_claim))
    role = next((role for role in _STRONGEST if role in named), None)
    if role is None:
        raise Forbidden(
            f"The token of {name} names no role: its claim {settings.role_claim} must be one of "
            f"{', '.join(Role)}, or a list that has one of them"
        )
    if not settings.apps_claim or role == Role.ADMIN:
        return Principal(name=name, role=role, apps=None)
    apps = _words(_claim(claims, settings.apps_claim))
    return Principal(name=name, role=role, apps=None if EVERY_APP in apps else frozenset(apps))


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim called *name*; where there is none, what its dots lead to (``realm_access.roles``)."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _words(value: Any) -> list[str]:
    """A list of texts, or a text with words that are separated by commas or space."""
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _printable(name: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in name[:_NAME])
    return shown or "(no sub)"
