"""TLS to an engine over TCP, from the files that docker's own clients use, and why it did not come about."""

from __future__ import annotations

import logging
import os
import ssl
import time

from docker.tls import TLSConfig

from shared_models import untrusted
from shared_models.aside import Aside
from shared_models.file_versions import unreadable, version
from shared_models.untrusted import Words

log = logging.getLogger(__name__)

FILES = ("ca.pem", "cert.pem", "key.pem")
"""The authority of the engine's certificate, and the certificate and key of this client."""
LOOK = 5.0
"""Seconds between two looks at the files, when there are connections to be made."""
TROUBLE = "TLS with the engine fails: "

_WORDS = Words(
    name="its certificate is not for {host}: use a name of the certificate in DOCKER_HOST, or have this one "
    "added to it",
    authority="its certificate is from an authority that is not in ca.pem in DOCKER_CERT_PATH",
    expired="its certificate has expired: renew it",
    not_yet="its certificate is not valid yet: are the clocks right?",
    plain="it does not speak TLS there: is it the right port, and was it started with --tlsverify?",
    alerts={
        "CERTIFICATE_REQUIRED": "it wants a certificate of this node: cert.pem and key.pem in "
        "DOCKER_CERT_PATH",
        "UNKNOWN_CA": "it does not know the authority of cert.pem in DOCKER_CERT_PATH: that must be in the "
        "file of its --tlscacert",
        "CERTIFICATE_EXPIRED": "cert.pem in DOCKER_CERT_PATH has expired: renew it",
        "UNSUPPORTED_CERTIFICATE": "cert.pem in DOCKER_CERT_PATH is not for clients: its key usage must have "
        "clientAuth",
        "BAD_CERTIFICATE": "it refuses cert.pem in DOCKER_CERT_PATH: that must be from the authority of its "
        "--tlscacert, for clients, and not expired",
        "PROTOCOL_VERSION": "it does not speak TLS 1.2 or later",
        "HANDSHAKE_FAILURE": "it refuses cert.pem in DOCKER_CERT_PATH, or has no cipher in common with "
        "this node",
    },
)
_VARIABLE = "DOCKER_CERT_PATH: "
_WANTS_TLS = "HTTP request to an HTTPS server"


class BadEngineFile(ValueError):
    """One line: which file of DOCKER_CERT_PATH, what is wrong with it."""


class EngineTLS:
    """The files of *folder*, read again when they are others: certificates are renewed under a node.

    Raises BadEngineFile for those that are there at first.
    """

    def __init__(self, folder: str) -> None:
        self._authority, self._cert, self._key = (os.path.join(folder, name) for name in FILES)
        self._version = self._versions()
        self._context = self._made()
        self._aside = Aside("files of TLS to the engine")
        self._due = 0.0

    async def context(self) -> ssl.SSLContext:
        """For connections of the event loop: of the files that could be used last."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + LOOK  # who asks meanwhile does not wait for this look
            try:
                await self._aside.do(self._read_again)
            except (OSError, BadEngineFile) as exc:
                said = exc.strerror if isinstance(exc, OSError) else str(exc).removeprefix(_VARIABLE)
                log.warning("%s%s; the certificates that were read before stay", _VARIABLE, said)
        return self._context

    def _read_again(self) -> None:
        found = self._versions()
        if found != self._version:
            self._context, self._version = self._made(), found

    def _versions(self) -> object:
        return tuple(map(version, (self._authority, self._cert, self._key)))

    def of_sdk(self) -> TLSConfig:
        """The same for the docker SDK, which reads the files at each connection."""
        return TLSConfig(client_cert=(self._cert, self._key), ca_cert=self._authority, verify=True)

    def _made(self) -> ssl.SSLContext:
        for path in (self._authority, self._cert, self._key):
            if trouble := unreadable(path):
                raise BadEngineFile(f"{_VARIABLE}{path}: {trouble}")
        try:
            context = ssl.create_default_context(cafile=self._authority)
        except ssl.SSLError:
            raise BadEngineFile(f"{_VARIABLE}{self._authority} has no certificate in PEM") from None
        try:
            context.load_cert_chain(self._cert, self._key, password=_encrypted)
        except BadEngineFile:
            raise BadEngineFile(
                f"{_VARIABLE}{self._key} is encrypted; give a key without a password"
            ) from None
        except ssl.SSLError as exc:
            if exc.reason == "KEY_VALUES_MISMATCH":
                raise BadEngineFile(f"{_VARIABLE}{self._key} is not the key of {self._cert}") from None
            said = exc.reason or exc
            raise BadEngineFile(
                f"{_VARIABLE}{self._cert} and {self._key} are no certificate and key in PEM ({said})"
            ) from None
        return context


def why(exc: BaseException, name: str) -> str:
    """One line when a request to the engine at *name* failed for TLS, or for the lack of it; else ""."""
    for one in untrusted.causes(exc):
        if isinstance(one, BadEngineFile):
            return TROUBLE + str(one)
        if _WANTS_TLS in str(one):
            where = f"DOCKER_CERT_PATH to a folder with {', '.join(FILES)}"
            return f"{TROUBLE}it wants TLS: set DOCKER_TLS_VERIFY=1, and {where}"
    said = untrusted.why(exc, name, _WORDS)
    return said and TROUBLE + said


def _encrypted() -> bytes:
    # Else OpenSSL asks at the terminal.
    raise BadEngineFile
