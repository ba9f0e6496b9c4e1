"""Tokens of an issuer (JWTs): signed by one of its keys, for this platform, and in their time."""

from __future__ import annotations

import base64
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jwt
import msgspec

from services.identity.claims import principal_of
from services.identity.keys import ALGORITHMS, Keys
from services.identity.settings import IdentitySettings
from services.identity.tokens import digest
from shared_models.access import Principal
from shared_models.errors import Unauthorized

LONGEST = 16 << 10
"""Characters of a token."""
REMEMBERED = 60.0
"""Seconds for which a token that was found good is not checked again: a signature costs as much as a call."""
MOST_REMEMBERED = 1000
_REQUIRED = ["exp", "iss", "aud", "sub"]


class JWTs:
    """Of one issuer."""

    def __init__(
        self, settings: IdentitySettings, keys: Keys, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._good: OrderedDict[bytes, tuple[Principal, float, int]] = OrderedDict()
        """By the token's digest: whose, until when, and by which keys."""

    def known(self, token: str) -> Principal | None:
        """Whose *token* is, when it was found good a moment ago."""
        principal, until, version = self._good.get(digest(token), (None, 0.0, 0))
        return principal if self._clock() < until and version == self._keys.version else None

    async def principal(self, token: str) -> Principal:
        """Raises Unauthorized that says what is wrong, Forbidden without a role, IssuerUnavailable."""
        return self.known(token) or await self._checked(token)

    async def _checked(self, token: str) -> Principal:
        algorithm, kid = _header(token)
        # Before a key is looked for: anybody can make up tokens of others.
        issuer = _unverified(token).get("iss")
        if issuer != self._settings.issuer:
            raise Unauthorized(f"The token is not of the issuer {self._settings.issuer}")
        keys = await self._keys.of(kid, algorithm)
        if not keys:
            raise Unauthorized("The token is signed with a key that its issuer does not have")
        for key in keys:
            try:
                claims = self._claims(token, key, algorithm)
                return self._remember(token, principal_of(claims, self._settings), _end(claims))
            except jwt.InvalidSignatureError:
                continue  # where the token names none, any of them may have signed it
            except jwt.PyJWTError as exc:
                raise self._refusal(exc) from None
        raise Unauthorized("The signature of the token is wrong")

    def _remember(self, token: str, principal: Principal, expires: float) -> Principal:
        until = min(expires + self._settings.leeway, self._clock() + REMEMBERED)
        self._good[digest(token)] = principal, until, self._keys.version
        if len(self._good) > MOST_REMEMBERED:
            self._good.popitem(last=False)
        return principal

    def ours(self, token: str) -> bool:
        """Whether *token* says that it is of this issuer and for this platform, true or not."""
        if token.count(".") != 2:
            return False
        claims = _unverified(token)
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        return claims.get("iss") == self._settings.issuer and any(
            one in named for one in self._settings.audience
        )

    def _claims(self, token: str, key: jwt.PyJWK, algorithm: str) -> dict[str, Any]:
        return jwt.decode(
            token, key, algorithms=[algorithm], audience=self._settings.audience,
            issuer=self._settings.issuer, leeway=self._settings.leeway, options={"require": _REQUIRED},
        )  # fmt: skip

    def _refusal(self, exc: jwt.PyJWTError) -> Unauthorized:
        match exc:
            case jwt.ExpiredSignatureError():
                return Unauthorized("The token has expired")
            case jwt.ImmatureSignatureError():
                return Unauthorized("The token is not valid yet")
            case jwt.InvalidAudienceError():
                wanted = " or ".join(self._settings.audience)
                return Unauthorized(f"The token is for others: its claim aud must have {wanted}")
            case jwt.MissingRequiredClaimError():
                return Unauthorized(f"The token has no claim {exc.claim}")
        return Unauthorized("The token cannot be read", detail=str(exc))


def _header(token: str) -> tuple[str, str]:
    """How a token says that it is signed, and by which key ("" for any)."""
    if len(token) > LONGEST:
        raise Unauthorized(f"The token has more than {LONGEST} characters")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as exc:
        raise Unauthorized("The token cannot be read", detail=type(exc).__name__) from None
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Unauthorized(f"The token must be signed with one of {', '.join(ALGORITHMS)}")
    return algorithm, kid if isinstance(kid, str) else ""


def _end(claims: dict[str, Any]) -> float:
    """When a token ends, unix seconds; one that is later than any time never does."""
    try:
        return float(claims["exp"])
    except OverflowError:
        return float("inf")


def _unverified(token: str) -> dict[str, Any]:
    """What a token claims, for a first look; empty when it is none."""
    try:
        body = token.split(".")[1]
        text = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        return msgspec.json.decode(text, type=dict[str, Any])
    except (IndexError, ValueError, msgspec.MsgspecError, RecursionError):
        return {}
