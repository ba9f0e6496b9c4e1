"""``open_identity``: whoever sends an Authorization header, from all sources that are set."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from services.identity.settings import IdentitySettings
from shared_models.access import Authenticator, Principal
from shared_models.errors import Unauthorized

if TYPE_CHECKING:
    from services.identity.jwts import JWTs
    from services.identity.token_file import TokenFile

MISSING = "No token: send the header Authorization: Bearer TOKEN"


class Identity(Authenticator):
    """Made by ``open_identity``."""

    def __init__(
        self, file: TokenFile | None, jwts: JWTs | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._file = file
        self._jwts = jwts
        self._clock = clock

    async def who(self, header: str) -> Principal:
        """See Authenticator."""
        token = _bearer(header)
        if not token:
            raise Unauthorized(MISSING)
        if self._file and (entry := self._file.find(token)):
            if entry.expires is not None and entry.expires <= self._clock():
                raise Unauthorized(f"The token of {entry.principal.name} has expired")
            return entry.principal
        if self._jwts and token.count(".") == 2:
            return await self._jwts.principal(token)
        raise Unauthorized("The token is not known here")

    def known(self, header: str) -> Principal | None:
        """See Authenticator."""
        token = _bearer(header) if header else ""
        if self._file and (entry := self._file.find(token)):
            expired = entry.expires is not None and entry.expires <= self._clock()
            return None if expired else entry.principal
        return self._jwts.known(token) if self._jwts else None

    def ours(self, header: str) -> bool:
        """See Authenticator."""
        token = _bearer(header)
        if self._file and self._file.find(token):
            return True
        return self._jwts is not None and self._jwts.ours(token)


@asynccontextmanager
async def open_identity(settings: IdentitySettings) -> AsyncIterator[Identity | None]:
    """Those who are known by *settings*; None where nobody is told apart.

    Raises ValueError for a file of tokens that cannot be used. An issuer may be away at first.
    """
    async with AsyncExitStack() as stack:
        file = jwts = None
        if settings.tokens_path:
            # Imported only now, as below: most nodes need no YAML and no cryptography.
            from services.identity.token_file import following

            file = await stack.enter_async_context(following(settings.tokens_path, settings.look_every))
        if settings.issuer:
            jwts = await stack.enter_async_context(_of_issuer(settings))
        yield Identity(file, jwts) if file or jwts else None


@asynccontextmanager
async def _of_issuer(settings: IdentitySettings) -> AsyncIterator[JWTs]:
    from services.identity.fetching import open_fetcher
    from services.identity.jwts import JWTs
    from services.identity.keys import Keys

    async with open_fetcher(settings) as fetcher:
        keys = Keys(fetcher.keys, ask_every=settings.ask_every, age=settings.keys_age)
        keys.ask()
        try:
            yield JWTs(settings, keys)
        finally:
            await keys.close()


def _bearer(header: str) -> str:
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
