"""An OpenID Connect issuer over HTTP: its discovery document, its keys, which may change, its tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.servers.ports import free_port

AUDIENCE = "fn"
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_ALGORITHMS: dict[str, Any] = jwt.algorithms.get_default_algorithms()


class Key:
    """A private key and how its tokens are signed."""

    def __init__(self, kid: str, algorithm: str = "ES256", private: Private | None = None) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private = private or _private(algorithm)

    def public(self, **changes: Any) -> dict[str, Any]:
        """As in a list of keys; what is changed to None is left out."""
        found = _ALGORITHMS[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        found |= {"kid": self.kid, "alg": self.algorithm, "use": "sig", **changes}
        return {name: value for name, value in found.items() if value is not None}


class Issuer:
    """Its *keys* are what it signs with and gives away; *asked* counts questions for them."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/realm"
        self.keys = [Key("one")]
        self.given: list[dict[str, Any]] | None = None
        """Given in place of *keys*."""
        self.document: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.asked = 0
        self.status = 200
        self._port = port
        self._runner: web.AppRunner | None = None

    def token(self, key: Key | None = None, *, kid: str | None = None, **claims: Any) -> str:
        """Signed with *key*, else the first one; claims that are None are left out."""
        key, now = key or self.keys[0], time.time()
        given = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 600, **claims}
        payload = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(
            payload, key.private, algorithm=key.algorithm, headers={"kid": key.kid if kid is None else kid}
        )

    async def start(self) -> None:
        """It answers."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/realm/.well-known/openid-configuration", self._discovery),
                web.get("/realm/keys", self._keys),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()

    async def stop(self) -> None:
        """Nobody listens there any more."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _discovery(self, request: web.Request) -> web.Response:
        return web.json_response(self.document)

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked += 1
        keys = [key.public() for key in self.keys] if self.given is None else self.given
        return web.json_response({"keys": keys}, status=self.status)


@asynccontextmanager
async def running_issuer() -> AsyncIterator[Issuer]:
    """An issuer that answers, with one key."""
    issuer = Issuer(free_port())
    await issuer.start()
    try:
        yield issuer
    finally:
        await issuer.stop()


def forged(token: str, **header: Any) -> str:
    """*token* with another head, its signature as it was."""
    _, body, signature = token.split(".")
    head = jwt.utils.base64url_encode(json.dumps(header).encode()).decode()
    return f"{head}.{body}.{signature}"


def unsigned(**claims: Any) -> str:
    """A token with the algorithm ``none``."""
    return jwt.encode(claims, "", algorithm="none")


def signed_with_text(secret: bytes, **claims: Any) -> str:
    """A token signed with a shared secret, such as the text of a public key."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    head, body = (part(json.dumps(one).encode()) for one in ({"alg": "HS256", "kid": "one"}, claims))
    return f"{head}.{body}.{part(hmac.digest(secret, f'{head}.{body}'.encode(), hashlib.sha256))}"


def _private(algorithm: str) -> Private:
    if algorithm.startswith("ES"):
        curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
        return ec.generate_private_key(curves[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
