"""Where a node connects to although others name the address: networks, names, and what they wrap."""

from __future__ import annotations

import ipaddress

import pytest

from shared_models.destinations import destinations, is_public, permitted

PRIVATE = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "0.0.0.0", "0.1.2.3", "192.0.2.1", "198.18.0.1", "192.88.99.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255", "168.63.129.16",
    "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1",
    "2001::1", "3fff::1", "5f00::1", "64:ff9b:1::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::ffff:0:10.0.0.1",
    "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "2001:0:a00:1::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_only_our_network_can_reach_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not permitted("example.com", address, ())


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]
)
def test_public_addresses_are_public_also_when_they_are_wrapped(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    assert permitted("example.com", address, ())


def test_a_network_that_is_allowed_may_be_called_and_no_other() -> None:
    allow = destinations("10.1.0.0/16, fd00::/8, 192.168.1.5")
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "192.168.1.5"):
        assert permitted("hooks.internal", address, allow), address
    for address in ("10.2.0.1", "192.168.1.6", "fe80::1", "127.0.0.1", "2002:a01:203::1"):
        assert not permitted("hooks.internal", address, allow), address


def test_a_host_that_is_allowed_may_be_anywhere() -> None:
    allow = destinations("Hooks.internal,*.svc.local")
    for host in ("hooks.internal", "HOOKS.internal.", "a.svc.local", "a.b.svc.local"):
        assert permitted(host, "10.0.0.1", allow), host
    for host in ("other.internal", "x.hooks.internal", "svc.local", "evilsvc.local", "hooks.internal.com"):
        assert not permitted(host, "10.0.0.1", allow), host


@pytest.mark.parametrize(
    "text", ["10.0.0.0/33", "10.0.0.1/8", "10.0.0", "http://hooks", "a b/c", "*.*", "**"]
)
def test_a_destination_that_is_none_is_a_bad_setting(text: str) -> None:
    with pytest.raises(ValueError, match="no network"):
        destinations(text)


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("169.254.0.0/16", "169.254.169.254"),
        ("169.254.0.0/16", "169.254.170.2"),
        ("169.254.0.0/16", "::ffff:169.254.169.254"),
        ("168.63.0.0/16", "168.63.129.16"),
        ("100.64.0.0/10", "100.100.100.200"),
        ("192.0.0.0/24", "192.0.0.192"),
        ("fc00::/7", "fd00:ec2::254"),
        ("fd00::/8", "fd20:ce::254"),
    ],
)
def test_what_gives_machines_their_credentials_is_in_no_network_that_is_allowed(
    network: str, address: str
) -> None:
    assert not permitted("example.com", address, destinations(network))
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if ip.version == 6 else None
    for named in (str(mapped or ip), "example.com", "*"):
        assert permitted("example.com", address, destinations(f"{network}, {named}")), named
    beside = ipaddress.ip_network(network)[7]
    assert permitted("example.com", str(beside), destinations(network))
