"""The file of tokens: what is read from it, and what is said of one that is wrong."""

from __future__ import annotations

import datetime
import hashlib
import time

import pytest

from services.identity.tokens import BadFile, digest, read
from shared_models.access import Role

DIGEST = hashlib.sha256(b"secret").hexdigest()
GOOD = f"name: ci, sha256: {DIGEST!r}, role: developer, apps: [shop]"


def one(text: str) -> bytes:
    return f"- {{{text}}}\n".encode()


def test_a_token_is_found_by_its_digest() -> None:
    entry = read(one(GOOD))[digest("secret")]
    assert (entry.principal.name, entry.principal.role) == ("ci", Role.DEVELOPER)
    assert entry.principal.apps == {"shop"}
    assert entry.expires is None
    assert digest("Secret") not in read(one(GOOD))


def test_an_empty_list_is_a_file_without_tokens() -> None:
    assert read(b"[]") == {}


@pytest.mark.parametrize("apps", ["'*'", "['*']"])
def test_a_star_stands_for_all_apps(apps: str) -> None:
    entry = read(one(GOOD.replace("[shop]", apps)))[digest("secret")]
    assert entry.principal.apps is None


def test_an_admin_has_all_apps() -> None:
    entry = read(one(f"name: root, sha256: {DIGEST!r}, role: admin"))[digest("secret")]
    assert entry.principal.has_every_app


def test_digests_are_read_in_either_case() -> None:
    assert digest("secret") in read(one(GOOD.replace(DIGEST, DIGEST.upper())))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31", (2027, 1, 31)),
        ("2027-01-31T12:00:00Z", (2027, 1, 31, 12)),
        ("'2027-01-31T14:00:00+02:00'", (2027, 1, 31, 12)),
        ("'2027-01-31'", (2027, 1, 31)),
    ],
)
def test_a_token_may_expire(text: str, moment: tuple[int, ...]) -> None:
    entry = read(one(f"{GOOD}, expires: {text}"))[digest("secret")]
    given = [*moment, 0, 0, 0][:6]
    assert entry.expires == datetime.datetime(*given, tzinfo=datetime.UTC).timestamp()


def test_a_time_without_a_zone_is_in_utc_wherever_the_node_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        entry = read(one(f"{GOOD}, expires: 2027-01-31T12:00:00"))[digest("secret")]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert entry.expires == datetime.datetime(2027, 1, 31, 12, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "must be a list"),
        (b"a: b", "must be a list"),
        (b"- [", "is not YAML in line"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- !!python/object/apply:os.system [true]", "is not YAML"),
        (b"- secret", "token 1: must have name"),
        (one(GOOD.replace("ci", "''")), "token 1: name"),
        (one(GOOD.replace("ci", '"two\\nlines"')), "token 1: name"),
        (one(GOOD.replace("ci", '"back\\u202e"')), "token 1: name"),
        (one(GOOD.replace("ci", "n" * 129)), "token 1: name"),
        (one(GOOD.replace(DIGEST, "secret")), r"token 1 \(ci\): sha256: must be 64"),
        (one(GOOD.replace(DIGEST, DIGEST + "00")), "sha256: must be 64"),
        (one(GOOD.replace(repr(DIGEST), "12345")), "sha256: must be 64"),
        (one(GOOD.replace("developer", "root")), "role: must be one of admin, developer, viewer, invoker"),
        (one(GOOD.replace("developer", "[admin]")), "role: must be one of"),
        (one(GOOD.replace("[shop]", "shop")), "apps: must be a list"),
        (one(GOOD.replace("[shop]", "[]")), "apps: must be a list"),
        (one(GOOD.replace("[shop]", "[1]")), "apps: must be a list"),
        (one(GOOD.replace("[shop]", "[shop, '*']")), "apps: must be a list"),
        (one(GOOD.replace(", apps: [shop]", "")), "apps: must be a list"),
        (one(GOOD.replace("developer", "admin")), "an admin has all apps"),
        (one(f"{GOOD}, expires: soon"), "expires: must be a day"),
        (one(f"{GOOD}, expires: 17"), "expires: must be a day"),
        (one(f"{GOOD}, token: secret"), "token is not known, only apps, expires"),
        (one(GOOD) + one(GOOD), r"token 2 \(ci\): its sha256 is there before"),
    ],
)
def test_a_bad_file_is_named_in_words(text: bytes, words: str) -> None:
    with pytest.raises(BadFile, match=words) as caught:
        read(text)
    assert "secret" not in str(caught.value)
