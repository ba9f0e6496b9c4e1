"""The files that TLS stands on, read into contexts; what is wrong with one is told by its variable."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from shared_models.file_versions import unreadable, version
from shared_models.tls_settings import TLSSettings

SOON = timedelta(days=7)
"""Before its end a certificate is warned of."""


class BadTLSFile(ValueError):
    """One line: which variable, which file, what is wrong with it, what to do."""


def versions(settings: TLSSettings) -> tuple[object, ...]:
    """Something that is another one when one of the files is, also when a link leads elsewhere."""
    return tuple(map(version, (settings.cert, settings.key, settings.authority, settings.crl)))


def add_certificate(context: ssl.SSLContext, settings: TLSSettings) -> None:
    """Certificate and key into *context*; raises BadTLSFile."""
    _readable("FN_NODE_CERT", settings.cert)
    _readable("FN_NODE_CERT_KEY", settings.key)
    leaf(settings)
    try:
        context.load_cert_chain(settings.cert, settings.key, password=_encrypted)
    except BadTLSFile:
        raise BadTLSFile(
            f"FN_NODE_CERT_KEY={settings.key}: is encrypted; give a key without a password, in a file that "
            "only the node may read"
        ) from None
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            said = "is not the key of the certificate in FN_NODE_CERT; give both files of one pair"
        else:
            said = f"has no private key in PEM that can be used ({exc.reason or exc})"
        raise BadTLSFile(f"FN_NODE_CERT_KEY={settings.key}: {said}") from None


def add_authority(context: ssl.SSLContext, settings: TLSSettings) -> None:
    """The authorities into *context*, as those that the other side's certificate must be from."""
    _readable("FN_NODE_CERT_AUTHORITY", settings.authority)
    try:
        context.load_verify_locations(settings.authority)
    except ssl.SSLError:
        raise BadTLSFile(f"FN_NODE_CERT_AUTHORITY={settings.authority}: has no certificate in PEM") from None


def leaf(settings: TLSSettings) -> x509.Certificate:
    """The node's own certificate, the first one of its file; raises BadTLSFile."""
    try:
        return x509.load_pem_x509_certificates(Path(settings.cert).read_bytes())[0]
    except OSError as exc:
        raise BadTLSFile(f"FN_NODE_CERT={settings.cert}: {exc.strerror}") from None
    except ValueError:
        raise BadTLSFile(f"FN_NODE_CERT={settings.cert}: has no certificate in PEM") from None


def names(certificate: x509.Certificate) -> list[str]:
    """Hosts and addresses that *certificate* is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = found.get_values_for_type(x509.IPAddress)
    return [*found.get_values_for_type(x509.DNSName), *map(str, addresses)]


def doubts(settings: TLSSettings) -> Iterator[str]:
    """What its clients will refuse the certificate for, now or soon. Raises BadTLSFile."""
    certificate, now = leaf(settings), datetime.now(UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    what = f"the certificate in FN_NODE_CERT={settings.cert}"
    if ends <= now:
        yield f"{what} expired on {ends:%Y-%m-%d %H:%M} UTC: clients refuse it; renew it"
    elif begins > now:
        yield f"{what} is valid from {begins:%Y-%m-%d %H:%M} UTC only: clients refuse it; is the clock right?"
    elif ends - now < SOON:
        yield f"{what} expires on {ends:%Y-%m-%d %H:%M} UTC; renew it before"
    if not names(certificate):
        yield f"{what} names no host (subjectAltName): clients that check names refuse it"


def _readable(variable: str, path: str) -> None:
    if trouble := unreadable(path):
        raise BadTLSFile(f"{variable}={path}: {trouble}")


def _encrypted() -> bytes:
    # Else OpenSSL asks at the terminal.
    raise BadTLSFile
