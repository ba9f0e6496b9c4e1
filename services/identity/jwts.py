"""Tokens of an issuer (JWTs): signed by one of its keys, for this platform, and in their time."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jwt
import msgspec

from services.identity.claims import principal_of
from services.identity.keys import ALGORITHMS, Keys
from services.identity.remembered import Remembered
from services.identity.settings import IdentitySettings
from shared_models.access import Principal
from shared_models.errors import Unauthorized

LONGEST = 16 << 10
"""Characters of a token."""
MOST_TRIED = 4
"""Keys that one token is checked with, where its header leaves open which."""
REMEMBERED = 60.0
"""Seconds for which a token is not checked again, whether it was found good or bad."""
MOST_REMEMBERED = 1000
"""Tokens that are remembered as good, and as many that are bad: strangers drive out no good ones."""
_REQUIRED = ["exp", "iss", "aud", "sub"]


class JWTs:
    """Of one issuer."""

    def __init__(
        self, settings: IdentitySettings, keys: Keys, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._good = Remembered[Principal](MOST_REMEMBERED)
        self._bad = Remembered[Unauthorized](MOST_REMEMBERED)

    def known(self, token: str) -> Principal | None:
        """Whose *token* is, when it was found good a moment ago."""
        return self._good.get(token, self._keys.version, self._clock())

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
        if len(keys) > MOST_TRIED:
            raise Unauthorized(
                f"Any of {len(keys)} keys of the issuer may have signed the token, and at most {MOST_TRIED} "
                "are tried: its header must name one of them (kid)"
            )
        version = self._keys.version
        if refused := self._bad.get(token, version, self._clock()):
            raise Unauthorized(refused.message, detail=refused.detail)
        try:
            claims = self._verified(token, keys, algorithm)
        except jwt.PyJWTError as exc:
            refusal = self._refusal(exc)
            # What is not valid yet may be a moment later; all else stays as it is.
            if not isinstance(exc, jwt.ImmatureSignatureError):
                self._bad.put(token, refusal, self._clock() + REMEMBERED, version)
            raise refusal from None
        principal = principal_of(claims, self._settings)
        until = min(_end(claims) + self._settings.leeway, self._clock() + REMEMBERED)
        self._good.put(token, principal, until, version)
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

    def _verified(self, token: str, keys: Sequence[jwt.PyJWK], algorithm: str) -> dict[str, Any]:
        """The claims of *token*, by the first of *keys* that signed it; raises PyJWTError."""
        *others, last = keys
        for key in others:
            with contextlib.suppress(jwt.InvalidSignatureError):
                return self._claims(token, key, algorithm)
        return self._claims(token, last, algorithm)

    def _claims(self, token: str, key: jwt.PyJWK, algorithm: str) -> dict[str, Any]:
        return jwt.decode(
            token, key, algorithms=[algorithm], audience=self._settings.audience,
            issuer=self._settings.issuer, leeway=self._settings.leeway, options={"require": _REQUIRED},
        )  # fmt: skip

    def _refusal(self, exc: jwt.PyJWTError) -> Unauthorized:
        match exc:
            case jwt.InvalidSignatureError():
                return Unauthorized("The signature of the token is wrong")
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
