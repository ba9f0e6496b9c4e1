import json
from pathlib import Path

import msgspec
import pytest

from shared_models import config, errors
from shared_models.app import check_v1_syslog_url
from shared_models.route import MAX_PATH, Route, check_path, clean_path

VECTORS = Path(__file__).parents[2] / "wire" / "scenarios" / "vectors"
ROUTE = Route(app_id="a", path="/p", image="i").created("2018-06-05T10:15:00.000Z")


@pytest.mark.parametrize("case", json.loads((VECTORS / "clean.json").read_text())["cases"])
def test_paths_are_cleaned_as_recorded(case):
    # Only rooted paths are asked for: the empty one is the root.
    assert clean_path(case["in"]) == (case["out"] if case["in"] else "/")


def test_a_path_is_the_same_with_and_without_its_slash():
    assert clean_path("a/b") == clean_path("/a/b") == clean_path("//a//b/") == "/a/b"


@pytest.mark.parametrize("path", ["/", "/a", "/a/b/", "/a%20b", "/é", "http://h/x", "/x?y=:z", "/x#:"])
def test_a_path_may_be(path):
    check_path(path)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", errors.RouteMissingPath),
        ("x", errors.RouteInvalidPath),
        ("?x", errors.RouteInvalidPath),
        ("//host", errors.RouteInvalidPath),
        ("a:b", errors.RouteInvalidPath),
        ("/:a", errors.RouteDynamicPath),
        ("/a%3ab", errors.RouteDynamicPath),
        ("http://h/a:b", errors.RouteDynamicPath),
        (":a", errors.RoutePathMalformed),
        ("/%", errors.RoutePathMalformed),
        ("/a\0", errors.RoutePathMalformed),
        ("/" + "a" * MAX_PATH, errors.RoutePathTooLong),
    ],
)
def test_a_path_may_not_be(path, error):
    with pytest.raises(error):
        check_path(path)


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("", 0), (" ", 0), ("0", 0), ("100m", 100), (" 250m ", 250), ("0.1", 100), (".5", 500), ("1.", 1000),
        ("1e-1", 100), ("+1", 1000), ("0.9999", 999), ("1024", 1024000), ("1024000m", 1024000),
    ],
)  # fmt: skip
def test_cpus_are_thousandths(text, millis):
    assert config.milli_cpus(text) == millis
    assert config.cpus_text(text) == (f"{millis}m" if millis else "")


@pytest.mark.parametrize(
    "text",
    [
        "1024001m", "1024.1", "-1", "-100m", "m", "foo", "1.5m", "100M", "100 m", "1,5", "NaN", "inf", "1m1",
        "1e400", "18446744073709551616m", "1_0", "0x1", "٣", "9" * 5000 + "m",
    ],
)  # fmt: skip
def test_what_is_no_number_of_cpus_is_refused(text):
    with pytest.raises(errors.InvalidCPUs):
        config.milli_cpus(text)


@pytest.mark.parametrize("name", ["X-Two", "x-two", "X-TWO"])
def test_a_header_is_removed_however_it_is_spelled(name):
    assert config.merge_headers({"x-two": ["a"], "Other": []}, {name: []}) == {"Other": []}


def test_a_change_that_breaks_a_rule_leaves_the_route():
    slow = ROUTE.merged(Route(type="async", timeout=3600), "now")
    assert (slow.type, slow.timeout) == ("async", 3600)
    with pytest.raises(errors.RouteInvalidTimeout):
        slow.merged(Route(type="sync"), "now")


def test_every_field_of_a_change_counts():
    apart = {"app_id", "path", "created_at", "updated_at"}
    changes = {
        "image": "j", "memory": 1, "cpus": "1m", "headers": {"X": ["y"]}, "type": "async", "format": "json",
        "timeout": 1, "idle_timeout": 1, "tmpfs_size": 1, "config": {"k": "v"},
        "annotations": {"k": msgspec.Raw(b"1")},
    }  # fmt: skip
    assert set(changes) == set(Route.__struct_fields__) - apart
    for name, value in changes.items():
        new = ROUTE.merged(Route(**{name: value}), "later")
        assert (getattr(new, name), new.updated_at) == (value, "later")
        assert new.merged(Route(**{name: value}), "never") is new


@pytest.mark.parametrize(
    "url", ["tcp://h:1", "tls://h:1", " tcp://a:1 , udp://b:2 ", "udp:nohost", "TCP://h"]
)
def test_v1_takes_several_addresses_of_syslog(url):
    check_v1_syslog_url(url)


@pytest.mark.parametrize("url", ["", "yo", "h:1", "tcp://a:1,", "unix:///dev/log", "tcp://%zz", "a,tcp://b"])
def test_v1_refuses_what_is_no_address_of_syslog(url):
    with pytest.raises(errors.InvalidSyslogURL):
        check_v1_syslog_url(url)
