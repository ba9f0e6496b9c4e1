"""Where a node connects to although others name the address: public addresses, and what its operator allows.

Whoever names the address must not reach, through the node, what only the node's network can. A name is judged
by what it resolves to at the moment of the connection.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence

from shared_models.env import words

EVERYWHERE = "*"
_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
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
_METADATA = frozenset(
    ipaddress.ip_address(one)
    for one in (
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200",
        "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
    )
)  # fmt: skip
"""Where clouds give a machine its credentials; some are within networks that are private, or public."""


def destinations(text: str) -> tuple[str, ...]:
    """Networks (``10.0.0.0/8``), hosts (``hooks.internal``, ``*.internal``), or ``*``; by commas."""
    found = tuple(word.lower().rstrip(".") for word in words(text))
    for one in found:
        if one != EVERYWHERE and not _is_network(one) and not _is_name(one):
            raise ValueError(f"{one!r} is no network such as 10.0.0.0/8, no host name, and not *")
    return found


def permitted(host: str, address: str, allow: Sequence[str]) -> bool:
    """Whether *host*, which resolved to *address* (an IP address), may be connected to there.

    *allow* is as ``destinations`` has it. An address at which a cloud gives credentials is in none of its
    networks: it must be named by itself, or by its host.
    """
    everywhere, networks, names, endings = _rules(tuple(allow))
    name = host.lower().rstrip(".")
    if everywhere or name in names or name.endswith(endings):
        return True
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if ip.version == 6 else None
    seen = mapped or ip
    if seen in _METADATA:
        return any(seen in network for network in networks if network.num_addresses == 1)
    return any(seen in network for network in networks) or is_public(ip)


def is_public(ip: IP) -> bool:
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


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    # What is made of numbers alone is a mistyped address.
    return bool(_NAME.fullmatch(text)) and not text.replace(".", "").isdigit()


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
