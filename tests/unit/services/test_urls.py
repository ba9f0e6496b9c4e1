"""Where backing services live."""

from __future__ import annotations

import pytest

from services import urls
from services.urls import Address, Params

ALL = ["sqlite", "memory", "postgres", "mysql", "redis", "s3"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///data/fn.db", Address(scheme="sqlite", path="data/fn.db")),
        ("sqlite:////srv/fn.db", Address(scheme="sqlite", path="/srv/fn.db")),
        ("sqlite://", Address(scheme="sqlite")),
        ("sqlite3:///srv/fn.db", Address(scheme="sqlite", path="/srv/fn.db")),
        ("memory://", Address(scheme="memory")),
        (
            "postgresql://me:p%40ss@db.example:5433/fn?sslmode=require&timeout=5",
            Address(
                scheme="postgres",
                host="db.example",
                port=5433,
                user="me",
                password="p@ss",
                path="fn",
                params={"sslmode": "require", "timeout": "5"},
            ),
        ),
        (
            "mysql://root:p@ss:w/o?d@tcp(db:3306)/fn",
            Address(scheme="mysql", host="db", port=3306, user="root", password="p@ss:w/o?d", path="fn"),
        ),
        ("mariadb://[::1]:3307/fn", Address(scheme="mysql", host="::1", port=3307, path="fn")),
        ("redis://cache", Address(scheme="redis", host="cache")),
        ("redis://:secret@cache/2", Address(scheme="redis", host="cache", password="secret", path="2")),
        ("rediss://cache/0", Address(scheme="redis", host="cache", path="0", params={"tls": "true"})),
        (
            "s3://key:se/cr+et@minio:9000/us-east-1/bucket?ssl=true",
            Address(
                scheme="s3",
                host="minio",
                port=9000,
                user="key",
                password="se/cr+et",
                path="us-east-1/bucket",
                params={"ssl": "true"},
            ),
        ),
        ("s3:///eu-central-1/bucket", Address(scheme="s3", path="eu-central-1/bucket")),
    ],
)
def test_a_url_names_its_parts(url: str, expected: Address) -> None:
    assert urls.parse(url, "FN_X_URL", ALL) == expected


def test_an_address_is_shown_without_login_and_parameters() -> None:
    address = urls.parse("redis://me:hunter2@[::1]:6380/3?prefix=hunter3", "FN_X_URL", ALL)
    assert str(address) == "redis://[::1]:6380/3"
    assert "hunter" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/data/fn.db", "not a URL"),
        ("bolt:///data/queue.db", "sqlite:///PATH"),
        ("mysql://root:hunter2@db/fn", "mysql:// is not supported"),
        ("sqlite://host/fn.db", "names no host"),
        ("sqlite:///fn.db?password=hunter2", "no parameters"),
        ("postgres://me:hunter2@db:99999/fn", "at most 65535"),
        ("postgres://me:hunter2@my db/fn", "escape"),
        ("postgres://me:hunter2@db/fn?timeout=1&timeout=2", "twice"),
    ],
)
def test_a_bad_url_is_told_with_its_variable_and_without_its_secrets(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        urls.parse(url, "FN_X_URL", ["sqlite", "postgres"])
    assert "FN_X_URL" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_parameters_are_taken_one_by_one() -> None:
    address = Address(scheme="redis", params={"tls": "true", "pool_size": "7", "timeout": "2.5", "mode": "b"})
    params = Params("FN_X_URL", address)
    assert params.flag("tls", False) is True
    assert params.whole("pool_size", 10, 1, 100) == 7
    assert params.seconds("timeout", 5) == 2.5
    assert params.choice("mode", "a", ("a", "b")) == "b"
    assert params.text("prefix", "fn") == "fn"
    params.done()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tls": "maybe"}, "parameter tls must be one of true, false"),
        ({"pool_size": "0"}, "pool_size must be a whole number from 1 to 100"),
        ({"pool_size": "many"}, "pool_size must be"),
        ({"timeout": "0"}, "timeout must be a number of seconds"),
        ({"timeout": "soon"}, "timeout must be"),
        ({"colour": "red"}, "no parameter 'colour'; it has pool_size, timeout, tls"),
    ],
)
def test_a_bad_parameter_is_told_with_the_rule_that_it_breaks(given: dict[str, str], words: str) -> None:
    def take() -> None:
        params = Params("FN_X_URL", Address(scheme="redis", params=given))
        params.flag("tls", False)
        params.whole("pool_size", 10, 1, 100)
        params.seconds("timeout", 5)
        params.done()

    with pytest.raises(ValueError, match=words) as raised:
        take()
    assert str(raised.value).startswith("FN_X_URL: ")
