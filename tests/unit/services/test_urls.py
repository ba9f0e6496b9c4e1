"""Where backing services live."""

from __future__ import annotations

import pytest

from services import urls


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///data/fn.db", ("sqlite", "data/fn.db")),
        ("sqlite:////srv/fn.db", ("sqlite", "/srv/fn.db")),
        ("sqlite://", ("sqlite", "")),
        ("sqlite3:///srv/fn.db", ("sqlite", "/srv/fn.db")),
        ("memory://", ("memory", "")),
    ],
)
def test_a_url_names_scheme_and_path(url: str, expected: tuple[str, str]) -> None:
    assert urls.parse(url, "FN_X_URL", ["sqlite", "memory"]) == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/data/fn.db", "not a URL"),
        ("bolt:///data/queue.db", "sqlite:///PATH"),
        ("mysql://root:hunter2@db/fn", "mysql:// is not supported"),
        ("sqlite://host/fn.db", "names no host"),
        ("sqlite:///fn.db?password=hunter2", "no parameters"),
    ],
)
def test_a_bad_url_is_told_with_its_variable_and_without_its_secrets(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        urls.parse(url, "FN_X_URL", ["sqlite"])
    assert "FN_X_URL" in str(raised.value)
    assert "sqlite" in str(raised.value)
    assert "hunter2" not in str(raised.value)
