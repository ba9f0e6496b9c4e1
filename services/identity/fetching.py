"""What is fetched of an issuer: its discovery document, and its keys."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from services.identity.settings import IdentitySettings
from shared_models.errors import IssuerUnavailable

LARGEST = 1 << 20
"""Bytes of an answer."""
_WELL_KNOWN = "/.well-known/openid-configuration"
_Object = dict[str, Any]


class Fetcher:
    """Made by ``open_fetcher``."""

    def __init__(self, session: aiohttp.ClientSession, settings: IdentitySettings) -> None:
        self._session = session
        self._settings = settings

    async def keys(self) -> list[_Object]:
        """The issuer's keys as it gives them; raises IssuerUnavailable, whose detail says why."""
        url = self._settings.jwks_url or await self._discovered()
        found = (await self._get(url)).get("keys")
        if not isinstance(found, list):
            raise _unavailable(url, "its answer has no list of keys")
        return [key for key in found if isinstance(key, dict)]

    async def _discovered(self) -> str:
        issuer = self._settings.issuer
        url = issuer.rstrip("/") + _WELL_KNOWN
        document = await self._get(url)
        if document.get("issuer") != issuer:
            said = str(document.get("issuer"))[:200]
            raise _unavailable(url, f"it is of the issuer {said!r}, and FN_OIDC_ISSUER is {issuer!r}")
        jwks_url = document.get("jwks_uri")
        if not isinstance(jwks_url, str) or urlsplit(jwks_url).scheme not in ("http", "https"):
            raise _unavailable(url, "it names no jwks_uri")
        if issuer.startswith("https:") and not jwks_url.startswith("https:"):
            raise _unavailable(url, "its jwks_uri is not https")
        return jwks_url

    async def _get(self, url: str) -> _Object:
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise _unavailable(url, f"status {response.status}")
                text = bytearray()
                async for piece in response.content.iter_any():
                    text += piece
                    if len(text) > LARGEST:
                        raise _unavailable(url, f"its answer has more than {LARGEST} bytes")
        except TimeoutError:
            raise _unavailable(url, f"no answer within {self._settings.patience:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise _unavailable(url, str(exc) or type(exc).__name__) from None
        try:
            return msgspec.json.decode(text, type=_Object)
        except (msgspec.MsgspecError, ValueError):
            raise _unavailable(url, "its answer is no JSON object") from None


@asynccontextmanager
async def open_fetcher(settings: IdentitySettings) -> AsyncIterator[Fetcher]:
    """With connections of its own, closed after each answer: it asks once in minutes."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        timeout=aiohttp.ClientTimeout(total=settings.patience),
        headers={"User-Agent": f"fn-hybrid/{importlib.metadata.version('fn-hybrid')}"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield Fetcher(session, settings)


def _unavailable(url: str, cause: str) -> IssuerUnavailable:
    return IssuerUnavailable(detail=f"{url}: {cause}", retry_after=5.0)
