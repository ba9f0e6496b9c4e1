"""Certificates that their authority has taken back before their end: its lists of them (CRLs), from a file.

OpenSSL refuses all that an authority has issued when it has no list of it, or one that is out of date.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from shared_models.certificates import BadTLSFile
from shared_models.tls_settings import TLSSettings

_LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def add_lists(context: ssl.SSLContext, settings: TLSSettings) -> None:
    """The lists, where there are some, into *context*, which refuses who is on one. Raises BadTLSFile."""
    if not settings.crl:
        return
    lists(settings)
    try:
        context.load_verify_locations(settings.crl)
    except (ssl.SSLError, OSError) as exc:
        raise BadTLSFile(f"FN_NODE_CERT_CRL={settings.crl}: {exc.strerror or exc}") from None
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def lists(settings: TLSSettings) -> list[x509.CertificateRevocationList]:
    """Those in the file, at least one; raises BadTLSFile."""
    where = f"FN_NODE_CERT_CRL={settings.crl}"
    try:
        content = Path(settings.crl).read_bytes()
        found = [x509.load_pem_x509_crl(one) for one in _LIST.findall(content)]
    except OSError as exc:
        raise BadTLSFile(f"{where}: {exc.strerror}") from None
    except ValueError:
        raise BadTLSFile(f"{where}: has a list that cannot be read") from None
    if b"-----BEGIN CERTIFICATE-----" in content:
        # Whoever may change the lists would choose the authorities.
        raise BadTLSFile(f"{where}: has a certificate; those of authorities are in FN_NODE_CERT_AUTHORITY")
    if not found:
        raise BadTLSFile(f"{where}: has no list of revoked certificates (CRL) in PEM")
    return found


def ends(settings: TLSSettings) -> float:
    """When the first one of the lists is out of date, in unix seconds; never: infinity."""
    return min(
        (end.timestamp() for one in lists(settings) if (end := one.next_update_utc)), default=float("inf")
    )


def doubts(settings: TLSSettings) -> Iterator[str]:
    """Why more certificates are refused than those on the lists. Raises BadTLSFile."""
    now, found = datetime.now(UTC), lists(settings)
    for one in found:
        what = f"the list of {_name(one.issuer)} in FN_NODE_CERT_CRL={settings.crl}"
        begins, end = one.last_update_utc, one.next_update_utc
        if end and end <= now:
            yield f"{what} is out of date since {end:%Y-%m-%d %H:%M} UTC: all its certificates are refused"
        elif begins > now:
            yield (
                f"{what} is valid from {begins:%Y-%m-%d %H:%M} UTC only: all its certificates are refused; "
                "is the clock right?"
            )
    issuers = {one.issuer for one in found}
    for name in _authorities(settings):
        if name not in issuers:
            yield (
                f"FN_NODE_CERT_CRL={settings.crl} has no list of {_name(name)}: certificates that it issued "
                "itself are refused"
            )


def told(settings: TLSSettings) -> str:
    """Whose lists there are, how many certificates are on them, and until when they are good."""
    return "; ".join(
        f"{len(one)} certificates of {_name(one.issuer)} are refused, until "
        + (f"{one.next_update_utc:%Y-%m-%d %H:%M} UTC" if one.next_update_utc else "there is another list")
        for one in lists(settings)
    )


def _authorities(settings: TLSSettings) -> list[x509.Name]:
    try:
        found = x509.load_pem_x509_certificates(Path(settings.authority).read_bytes())
    except (OSError, ValueError):
        return []
    return list(dict.fromkeys(one.subject for one in found))


def _name(name: x509.Name) -> str:
    return name.rfc4514_string() or "(no name)"
