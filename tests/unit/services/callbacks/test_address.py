from __future__ import annotations

import ipaddress

import pytest

from services.callbacks.address import is_public, permitted, refusal, shown
from services.callbacks.settings import CallbackSettings, destinations

NOWHERE = CallbackSettings()


def allowing(text: str) -> CallbackSettings:
    return CallbackSettings(allow=destinations(text))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "HTTPS://Example.COM:443/done?key=a%2Fb#part",
        "https://xn--mnchen-3ya.example:8443/",
        "http://example.com.:1024/",
        "http://under_score.example/",
        "http://8.8.8.8/",
        "http://[2606:4700:4700::1111]:65535/",
    ],
)
def test_addresses_of_the_internet_may_be_called(url: str) -> None:
    assert refusal(url, NOWHERE) == ""


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "ASCII"),
        ("http://example.com/\r\nHost: other", "ASCII"),
        ("http://example.com/ü", "ASCII"),
        ("http://\uff11\uff12\uff17.0.0.1/", "ASCII"),
        ("http://example.com/" + "a" * 2048, "2048"),
        ("ftp://example.com/", "http://"),
        ("file:///etc/passwd", "http://"),
        ("unix:///run/docker.sock", "http://"),
        ("//example.com/", "http://"),
        ("example.com", "http://"),
        ("http://me@example.com/", "user"),
        ("http://me:secret@example.com/", "user"),
        ("http://@example.com/", "user"),
        ("http://example.com\\@10.0.0.1/", "no URL"),
        ("http://example.com:http/", "no URL"),
        ("http://example.com:99999/", "no URL"),
        ("http://[::1/", "no URL"),
        ("http:///done", "host"),
        ("http://exa%6dple.com/", "host"),
        ("http://a..b/", "host"),
        ("http://[fe80::1%25eth0]/", "host"),
        ("http://example.com:22/", "port"),
        ("http://example.com:25/", "port"),
        ("http://example.com:0/", "port"),
        ("http://example.com:1023/", "port"),
    ],
)
def test_what_is_no_address_of_a_receiver_is_refused_with_the_rule(url: str, rule: str) -> None:
    assert rule in refusal(url, CallbackSettings(allow=("*",)))


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0177.0.0.1", "127.0.0.1.", "1.2.3", "127.0.0.01"])
def test_odd_notations_of_numbers_are_refused_whatever_is_allowed(host: str) -> None:
    assert "usual form" in refusal(f"http://{host}/", CallbackSettings(allow=("*",)))


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
def test_addresses_that_only_our_network_can_reach_are_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not permitted("example.com", address, NOWHERE)
    host = f"[{address}]" if ":" in address else address
    assert "FN_CALLBACK_ALLOW" in refusal(f"http://{host}:8080/done", NOWHERE)
    assert refusal(f"http://{host}:8080/done", allowing("*")) == ""


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]
)
def test_public_addresses_are_public_also_when_they_are_wrapped(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    assert permitted("example.com", address, NOWHERE)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "api.localhost"])
def test_the_names_of_this_machine_are_refused_at_once(host: str) -> None:
    assert "FN_CALLBACK_ALLOW" in refusal(f"http://{host}/", NOWHERE)
    assert refusal(f"http://{host}/", allowing("127.0.0.0/8")) == ""


def test_a_network_that_is_allowed_may_be_called_and_no_other() -> None:
    settings = allowing("10.1.0.0/16, fd00::/8, 192.168.1.5")
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "192.168.1.5"):
        assert permitted("hooks.internal", address, settings), address
    for address in ("10.2.0.1", "192.168.1.6", "fe80::1", "127.0.0.1", "2002:a01:203::1"):
        assert not permitted("hooks.internal", address, settings), address


def test_a_host_that_is_allowed_may_be_anywhere() -> None:
    settings = allowing("Hooks.internal,*.svc.local")
    for host in ("hooks.internal", "HOOKS.internal.", "a.svc.local", "a.b.svc.local"):
        assert permitted(host, "10.0.0.1", settings), host
    for host in ("other.internal", "x.hooks.internal", "svc.local", "evilsvc.local", "hooks.internal.com"):
        assert not permitted(host, "10.0.0.1", settings), host


@pytest.mark.parametrize(
    "text", ["10.0.0.0/33", "10.0.0.1/8", "10.0.0", "http://hooks", "a b/c", "*.*", "**"]
)
def test_a_destination_that_is_none_is_a_bad_setting(text: str) -> None:
    with pytest.raises(ValueError, match="no network"):
        destinations(text)


def test_a_log_line_shows_host_and_port_alone() -> None:
    assert shown("https://example.com/secret?key=secret#secret") == "example.com:443"
    assert shown("http://me:secret@example.com:8080/") == "example.com:8080"
    assert shown("http://EXAMPLE.com.:8080/") == "example.com:8080"
    assert "secret" not in shown("http://h:secret/")
