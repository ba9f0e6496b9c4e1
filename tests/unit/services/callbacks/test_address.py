from __future__ import annotations

import pytest

from services.callbacks.address import refusal, shown
from services.callbacks.settings import CallbackSettings
from shared_models.destinations import destinations
from tests.unit.shared_models.test_destinations import PRIVATE

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


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_only_our_network_can_reach_are_refused(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    assert "FN_CALLBACK_ALLOW" in refusal(f"http://{host}:8080/done", NOWHERE)
    assert refusal(f"http://{host}:8080/done", allowing("*")) == ""


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "api.localhost"])
def test_the_names_of_this_machine_are_refused_at_once(host: str) -> None:
    assert "FN_CALLBACK_ALLOW" in refusal(f"http://{host}/", NOWHERE)
    assert refusal(f"http://{host}/", allowing("127.0.0.0/8")) == ""


def test_a_log_line_shows_host_and_port_alone() -> None:
    assert shown("https://example.com/secret?key=secret#secret") == "example.com:443"
    assert shown("http://me:secret@example.com:8080/") == "example.com:8080"
    assert shown("http://EXAMPLE.com.:8080/") == "example.com:8080"
    assert "secret" not in shown("http://h:secret/")
