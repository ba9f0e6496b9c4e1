"""redis:// URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from services import urls
from services.queue import SCHEMES, VARIABLE
from services.queue.redis_settings import RedisSettings


def settings(url: str) -> RedisSettings:
    return RedisSettings.of(urls.parse(url, VARIABLE, SCHEMES), VARIABLE)


def test_a_url_names_login_host_database_and_parameters() -> None:
    found = settings(
        "redis://me:p%40ss@[::1]:7000/3?prefix=a.b&pool_size=4&connect_timeout=0.5&timeout=2&tls=true"
    )
    assert (found.user, found.password, found.host, found.port, found.db) == ("me", "p@ss", "::1", 7000, 3)
    assert (found.base, found.pool_size, found.connect_timeout, found.timeout) == ("{a.b}:", 4, 0.5, 2)
    assert found.tls
    assert "p@ss" not in repr(found)


def test_what_a_url_leaves_out_has_a_default() -> None:
    found = settings("redis://")
    assert (found.host, found.port, found.db, found.user, found.password) == ("localhost", 6379, 0, "", "")
    assert (found.base, found.tls, found.pool_size, found.patience) == ("{fn}:", False, 10, 10)


def test_rediss_is_tls() -> None:
    assert settings("rediss://host").tls


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://host/name", "number of a database"),
        ("redis://host/0?prefix=", "prefix must be"),
        ("redis://host/0?prefix={x}", "prefix must be"),
        ("redis://host/0?pool_size=0", "pool_size must be"),
        ("redis://host/0?timeout=0", "timeout must be"),
        ("redis://host/0?tls=yes", "tls must be"),
        ("redis://host/0?ca=/none", "ca needs tls=true"),
        ("rediss://host/0?ca=/none", "ca has no usable certificates"),
        ("redis://host/0?retries=3", "no parameter 'retries'"),
    ],
)
def test_a_bad_url_is_told_with_the_rule(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        settings(url)
    assert str(caught.value).startswith("FN_MQ_URL: ")


def test_a_file_without_certificates_is_no_ca(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ValueError, match="no usable certificates"):
        settings(f"rediss://host/0?ca={tmp_path}/ca.pem")
