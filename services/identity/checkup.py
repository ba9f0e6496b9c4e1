"""What ``fn-node doctor`` asks of tokens: whether the file can be read, and whether the issuer has keys."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from services.identity.fetching import open_fetcher
from services.identity.settings import IdentitySettings
from services.identity.token_file import following
from shared_models.errors import IssuerUnavailable
from shared_models.finding import Finding, Level

_FILE, _ISSUER = "tokens (FN_API_TOKENS)", "issuer of tokens (FN_OIDC_ISSUER)"
_SOON = 14 * 86400.0
"""Seconds before the end of a token in which it is named."""


async def examine_identity(settings: IdentitySettings) -> AsyncIterator[Finding]:
    """Each source of tokens as a node would open it; nothing where there is none."""
    if settings.tokens_path:
        async for finding in _file(settings):
            yield finding
    if settings.issuer:
        yield await _issuer(settings)


async def _file(settings: IdentitySettings) -> AsyncIterator[Finding]:
    try:
        async with following(settings.tokens_path, settings.look_every) as file:
            entries = file.entries
    except ValueError as exc:
        yield Finding(
            Level.ERROR, _FILE, str(exc).removeprefix("FN_API_TOKENS: "),
            "put it right; fn-node token --file adds entries to it",
        )  # fmt: skip
        return
    yield Finding(Level.OK, _FILE, f"{settings.tokens_path} has {len(entries)} tokens")
    ends = [(one.expires, one.principal.name) for one in entries.values() if one.expires is not None]
    now = time.time()
    for expires, name in sorted(ends):
        if expires < now + _SOON:
            days = (expires - now) / 86400
            says = (
                f"the token of {name} ends in {days:.1f} days" if days > 0 else f"that of {name} has expired"
            )
            yield Finding(Level.WARNING, _FILE, says, "make another one with fn-node token, or take it out")


async def _issuer(settings: IdentitySettings) -> Finding:
    try:
        async with open_fetcher(settings) as fetcher:
            keys = await fetcher.keys()
    except IssuerUnavailable as exc:
        return Finding(
            Level.ERROR, _ISSUER, exc.detail,
            "set FN_OIDC_ISSUER, or let the node reach it; until then its tokens are answered 503",
        )  # fmt: skip
    if not keys:
        return Finding(Level.ERROR, _ISSUER, "it has no keys", "no token can be checked: look at the issuer")
    return Finding(Level.OK, _ISSUER, f"{settings.issuer} has {len(keys)} keys")
