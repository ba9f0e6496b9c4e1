"""Where a callback may lead: public addresses, and those that the operator allows.

Whoever may call a function names the address, and the API node calls it from within: without these rules
everybody could reach what only our network can. A name is judged by what it resolves to at the moment of
the connection (``resolver``); what can be known before is told to the client that names it.
"""

from __future__ import annotations

import ipaddress
import re

from yarl import URL

from services.callbacks.settings import CallbackSettings
from shared_models.destinations import IP, permitted

MAX_LENGTH = 2048
_PORTS = (80, 443)
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
_LOCAL = "127.0.0.1"


def refusal(url: str, settings: CallbackSettings) -> str:
    """Why *url* cannot be called back, in words for the client ("it must ..."); empty when it may be tried.

    Names are not resolved here: they may lead elsewhere by the time of the callback.
    """
    if len(url) > MAX_LENGTH:
        return f"it must have {MAX_LENGTH} characters at most"
    if not _PRINTABLE.fullmatch(url):
        return "it must be ASCII without spaces, everything else percent-encoded"
    try:
        address = URL(url, encoded=True)
        host, port, user = address.raw_host or "", address.port or 0, address.raw_user
    except ValueError:
        return "it is no URL"
    if address.scheme not in ("http", "https"):
        return "it must begin with http:// or https://"
    if user is not None or "@" in address.raw_authority:
        return "it must not have a user or a password"
    literal = _literal(host)
    if not host or (literal is None and not _NAME.fullmatch(host)) or _is_odd(host, literal):
        return "its host must be a name or an address in its usual form"
    if port not in _PORTS and port < 1024:
        return "its port must be 80, 443, or 1024 and above"
    if (known := literal or _known(host)) and not permitted(host, str(known), settings.allow):
        return "its host is not a public address, and FN_CALLBACK_ALLOW does not name it"
    return ""


def shown(url: str) -> str:
    """Host and port of *url*: what may stand in a log line, as the rest may hold secrets."""
    try:
        address = URL(url, encoded=True)
        return f"{(address.raw_host or '').lower().rstrip('.')}:{address.port}"
    except ValueError:
        return "(no URL)"


def _literal(host: str) -> IP | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    # A zone names a card of this machine, which is nobody else's business.
    return None if "%" in host else ip


def _is_odd(host: str, literal: IP | None) -> bool:
    """``127.1``, ``2130706433``: no name, and yet the system takes it for an address."""
    return literal is None and host.replace(".", "").isdigit()


def _known(host: str) -> str:
    name = host.lower().rstrip(".")
    return _LOCAL if name == "localhost" or name.endswith(".localhost") else ""
