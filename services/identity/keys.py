"""The keys of an issuer, from memory: asked for again when they are old, or when one is not known.

Keys that are known serve for as long as the issuer is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from shared_models.background import ended
from shared_models.errors import FnError, IssuerUnavailable

log = logging.getLogger(__name__)

ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "OKP",
}
"""How a token may be signed, with keys of which kind. No shared secret: who can check it could make it."""
MOST = 100
"""Keys of one issuer."""
_LEAST_BITS = 2048


class Keys:
    """*fetch* gives the issuer's keys or raises an FnError. Times in seconds."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Sequence[dict[str, Any]]]],
        *,
        ask_every: float,
        age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._ask_every = ask_every
        self._age = age
        self._clock = clock
        self._keys: list[dict[str, Any]] = []
        self.version = 0
        """Another one whenever the keys have changed."""
        self._made: dict[tuple[int, str], jwt.PyJWK | None] = {}
        """Of the keys, by number and algorithm."""
        self._fetched = self._asked = float("-inf")
        self._failure: FnError | None = None
        self._asking: asyncio.Task[None] | None = None

    async def of(self, kid: str, algorithm: str) -> list[jwt.PyJWK]:
        """The keys that may have signed a token with this header; raises IssuerUnavailable.

        None of them where the issuer has no such key.
        """
        if self._clock() - self._fetched > self._age:
            self.ask()
        found = self._find(kid, algorithm)
        if not found and (asking := self.ask()):
            await asyncio.wait({asking})
            found = self._find(kid, algorithm)
        if not found and self._failure:
            raise IssuerUnavailable(detail=self._failure.detail, retry_after=self._ask_every)
        return found

    def ask(self) -> asyncio.Task[None] | None:
        """Asks the issuer, or waits with whoever does; None when it was asked a moment ago."""
        if self._asking is None and self._clock() - self._asked >= self._ask_every:
            self._asked = self._clock()
            self._asking = asyncio.create_task(self._ask(), name="ask an issuer for its keys")
        return self._asking

    async def close(self) -> None:
        """Nothing is asked any more."""
        if self._asking:
            await ended(self._asking)

    async def _ask(self) -> None:
        try:
            keys = list(await self._fetch())[:MOST]
        except FnError as exc:
            kept = "the keys that are known stay in force" if self._keys else "tokens of it are answered 503"
            log.error("the issuer of tokens gives no keys, %s: %s", kept, exc.detail or exc.message)
            self._failure = exc
        else:
            if keys != self._keys:
                self._keys, self.version = keys, self.version + 1
                self._made.clear()
            if self._failure:
                log.info("the issuer of tokens gives its keys again")
            self._failure, self._fetched = None, self._clock()
        finally:
            self._asking = None

    def _find(self, kid: str, algorithm: str) -> list[jwt.PyJWK]:
        kind = ALGORITHMS[algorithm]
        fitting = [
            number
            for number, key in enumerate(self._keys)
            if key.get("kty") == kind
            and key.get("use", "sig") == "sig"
            and key.get("alg", algorithm) == algorithm
            and (not kid or key.get("kid") == kid)
        ]
        return [key for number in fitting if (key := self._key(number, algorithm))]

    def _key(self, number: int, algorithm: str) -> jwt.PyJWK | None:
        which = number, algorithm
        if which not in self._made:
            self._made[which] = _usable(self._keys[number], algorithm)
        return self._made[which]


def _usable(given: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(given, algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as exc:
        log.warning("a key of the issuer of tokens cannot be used: %s", type(exc).__name__)
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _LEAST_BITS:
        log.warning("a key of the issuer of tokens is not used: it has %d bits", key.key.key_size)
        return None
    return key
