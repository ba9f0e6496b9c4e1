"""Certificates for tests of TLS: an authority, and files of those that it has certified."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared_models.tls_settings import TLSSettings


@dataclass(frozen=True, slots=True)
class Files:
    """Of one node, in PEM."""

    cert: Path
    key: Path
    authority: Path

    def settings(self) -> TLSSettings:
        return TLSSettings(cert=str(self.cert), key=str(self.key), authority=str(self.authority))

    def environ(self) -> dict[str, str]:
        """The same as variables."""
        return {
            "FN_NODE_CERT": str(self.cert),
            "FN_NODE_CERT_KEY": str(self.key),
            "FN_NODE_CERT_AUTHORITY": str(self.authority),
        }


class Authority:
    """Made by ``authority``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ca = trustme.CA()
        self.file = folder / "ca.crt"
        self._ca.cert_pem.write_to_path(str(self.file))

    def certify(
        self, name: str, *hosts: str, ends: datetime | None = None, begins: datetime | None = None
    ) -> Files:
        """Files of a node at *hosts* (empty: this machine), in place of those of the same *name*."""
        made = self._ca.issue_cert(*(hosts or ("127.0.0.1", "localhost")), not_after=ends, not_before=begins)
        files = Files(self.folder / f"{name}.crt", self.folder / f"{name}.key", self.file)
        _replace(files.key, made.private_key_pem.bytes())
        _replace(files.cert, b"".join(pem.bytes() for pem in made.cert_chain_pems))
        return files

    def revoke(
        self, *revoked: Files, begins: datetime | None = None, ends: datetime | None = None, name: str = "crl"
    ) -> Path:
        """The file with the list of these, in place of the one of the same *name*; by default for an hour."""
        now = datetime.now(UTC).replace(microsecond=0)
        own = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(own.subject)
            .last_update(begins or now - timedelta(days=1))
            .next_update(ends or now + timedelta(hours=1))
        )
        for files in revoked:
            serial = x509.load_pem_x509_certificates(files.cert.read_bytes())[0].serial_number
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            made = made.add_revoked_certificate(one.build())
        key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        path = self.folder / f"{name}.pem"
        _replace(path, made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def client(self, files: Files | None = None) -> ssl.SSLContext:
        """What a client has that trusts this authority, and shows the certificate in *files*."""
        context = ssl.create_default_context(cafile=str(self.file))
        if files:
            context.load_cert_chain(files.cert, files.key)
        return context


@contextmanager
def authority() -> Iterator[Authority]:
    """A new one, whose files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tls-") as folder:
        yield Authority(Path(folder))


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)
