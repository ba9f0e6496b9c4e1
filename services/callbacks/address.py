"""Where a callback may lead: public addresses, and those that the operator allows.

Whoever may call a function names the address, and the API node calls it from within: without these rules
everybody could reach what only our network can. A name is judged by what it resolves to at the moment of
the connection (``resolver``); what can be known before is told to the client that names it.
"""

from __future__ import annotations

import functools
import ipaddress
import re

from yarl import URL

from services.callbacks.settings import EVERYWHERE, CallbackSettings

MAX_LENGTH = 2048
_PORTS = (80, 443)
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
_LOCAL = "127.0.0.1"

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_MORE = tuple(
    ipaddress.ip_network(one)
    for one in (
        "168.63.129.16/32",  # what Azure serves to its machines, though the address is public
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "3fff::/20",  # documentation (RFC 9637), not known to all versions of ipaddress
        "5f00::/16",  # segment routing within a network (RFC 9602)
    )
)


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
    if (known := literal or _known(host)) and not permitted(host, str(known), settings):
        return "its host is not a public address, and FN_CALLBACK_ALLOW does not name it"
    return ""


def permitted(host: str, address: str, settings: CallbackSettings) -> bool:
    """Whether *host*, which resolved to *address* (an IP address), may be connected to there."""
    everywhere, networks, names, endings = _rules(settings.allow)
    name = host.lower().rstrip(".")
    if everywhere or name in names or name.endswith(endings):
        return True
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if ip.version == 6 else None
    seen = mapped or ip
    return any(seen in network for network in networks) or is_public(ip)


def is_public(ip: _IP) -> bool:
    """Whether *ip* leads to the Internet; one that wraps another leads where that one does."""
    if ip.version == 6:
        wrapped = ip.ipv4_mapped or ip.sixtofour
        if wrapped is None and ip in _NAT64:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(wrapped)
        if ip.is_site_local:
            return False
    if ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback or ip.is_link_local:
        return False
    return ip.is_global and not any(ip in network for network in _MORE)


def shown(url: str) -> str:
    """Host and port of *url*: what may stand in a log line, as the rest may hold secrets."""
    try:
        address = URL(url, encoded=True)
        return f"{(address.raw_host or '').lower().rstrip('.')}:{address.port}"
    except ValueError:
        return "(no URL)"


def _literal(host: str) -> _IP | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    # A zone names a card of this machine, which is nobody else's business.
    return None if "%" in host else ip


def _is_odd(host: str, literal: _IP | None) -> bool:
    """``127.1``, ``2130706433``: no name, and yet the system takes it for an address."""
    return literal is None and host.replace(".", "").isdigit()


def _known(host: str) -> str:
    name = host.lower().rstrip(".")
    return _LOCAL if name == "localhost" or name.endswith(".localhost") else ""


@functools.lru_cache(maxsize=8)
def _rules(
    allow: tuple[str, ...],
) -> tuple[bool, tuple[_Network, ...], frozenset[str], tuple[str, ...]]:
    networks: list[_Network] = []
    names: set[str] = set()
    for one in allow:
        try:
            networks.append(ipaddress.ip_network(one))
        except ValueError:
            names.add(one)
    endings = tuple(name[1:] for name in names if name.startswith("*."))
    return EVERYWHERE in allow, tuple(networks), frozenset(names), endings
