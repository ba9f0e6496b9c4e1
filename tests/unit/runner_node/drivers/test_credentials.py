"""Which login an image is pulled with: files as docker and Kubernetes write them, matched exactly."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

import pytest

from runner_node.drivers.credentials import DEFAULT, Credentials, parsed, repository
from runner_node.drivers.settings import DriverSettings
from shared_models.env import read


def entry(user: str, password: str = "p") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def inline(**servers: str) -> Credentials:
    """Credentials whose entries have users: ``inline(**{"reg.example": "ann"})``."""
    return Credentials(json.dumps({"auths": {server: entry(user) for server, user in servers.items()}}))


@pytest.mark.parametrize(
    ("image", "host", "path"),
    [
        ("hello", "docker.io", ["library", "hello"]),
        ("me/fn:1", "docker.io", ["me", "fn"]),
        ("index.docker.io/me/fn", "docker.io", ["me", "fn"]),
        ("localhost/fn", "localhost", ["fn"]),
        ("Evil/fn:1", "evil", ["fn"]),
        ("Reg.example:5000/a/b:2@sha256:00", "reg.example:5000", ["a", "b"]),
    ],
)
def test_an_image_names_its_registry_by_dockers_rules(image: str, host: str, path: list[str]) -> None:
    assert repository(image) == (host, path)


@pytest.mark.parametrize("server", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_the_names_of_docker_hub_are_one(server: str) -> None:
    assert inline(**{server: "ann"}).login("me/fn") == {"username": "ann", "password": "p"}


def test_a_login_of_docker_hub_goes_to_no_host_with_capitals() -> None:
    assert inline(**{"docker.io": "ann"}).login("EVIL/fn") == {}


@pytest.mark.parametrize(
    "image",
    ["evil-reg.example/f", "a.reg.example/f", "reg.example:5000/f", "reg.example.evil/f", "reg.exampl/f"],
)
def test_a_login_goes_to_no_other_host(image: str) -> None:
    found = inline(**{"https://reg.example": "ann"})
    assert found.login("reg.example/f")["username"] == "ann"
    assert found.login(image) == {}


def test_the_entry_with_the_longest_path_wins_and_paths_are_whole_parts() -> None:
    found = inline(**{"reg.example": "all", "reg.example/team": "team", "reg.example/team/app": "app"})
    for image, user in (
        ("reg.example/team/app:1", "app"),
        ("reg.example/team/application", "team"),
        ("reg.example/teams/app", "all"),
    ):
        assert found.login(image)["username"] == user


def test_of_equal_entries_the_first_counts_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "later").write_text(json.dumps({"auths": {"reg.example": entry("later")}}))
    auths = {"https://reg.example": entry("first"), "reg.example": entry("second")}
    found = Credentials(json.dumps({"auths": auths}), (str(tmp_path / "later"),))
    assert found.login("reg.example/f")["username"] == "first"


def test_an_image_with_a_digest_has_the_login_of_its_path() -> None:
    found = inline(**{"reg.example": "all", "reg.example/team/app": "app"})
    for image in ("reg.example/team/app@sha256:00", "reg.example/team/app:1@sha256:00"):
        assert found.login(image)["username"] == "app", image


def test_the_end_of_a_password_that_docker_pads_is_cut() -> None:
    found = Credentials(json.dumps({"auths": {"reg.example": entry("ann", "pass\0\0")}}))
    assert found.login("reg.example/f") == {"username": "ann", "password": "pass"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "must be a JSON object"),
        ('"s3cret"', "must be a JSON object"),
        ('{"auths": {"reg.example": "s3cret"}}', "entry reg.example: must be a JSON object"),
        ('{"auths": {"reg.example": {"auth": "czNjcmV0"}}}', "must be base64 of USER:PASSWORD"),
        ('{"auths": {"reg.example": {"auth": "!czNj:cmV0"}}}', "must be base64 of USER:PASSWORD"),
        ('{"auths": {"reg.example": {"auth": "YTpi!"}}}', "must be base64 of USER:PASSWORD"),
    ],
)
def test_a_login_that_is_none_is_told_and_the_others_hold(
    text: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad").write_text(text)
    (tmp_path / "good").write_text(json.dumps({"auths": {"reg.example": entry("ann")}}))
    found = Credentials(paths=(str(tmp_path / "bad"), str(tmp_path / "good")))
    assert found.login("reg.example/f")["username"] == "ann"
    assert words in caplog.text
    assert "s3cret" not in caplog.text


def test_tokens_are_passed_on_as_the_engine_has_them() -> None:
    auths = {"a.example": {"identitytoken": "t1", **entry("u", "")}, "b.example": {"registrytoken": "t2"}}
    found = Credentials(json.dumps({"auths": auths}))
    assert found.login("a.example/f") == {"username": "u", "identitytoken": "t1"}
    assert found.login("b.example/f") == {"registrytoken": "t2"}


def test_files_of_the_older_kind_and_several_pull_secrets_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / ".dockercfg").write_text(json.dumps({"old.example": entry("old")}))
    (tmp_path / "two" / ".dockerconfigjson").write_text(json.dumps({"auths": {"new.example": entry("new")}}))
    found = Credentials(paths=(str(tmp_path),))
    assert found.login("old.example/f")["username"] == "old"
    assert found.login("new.example/f")["username"] == "new"


def test_what_cannot_be_used_is_told_once_without_what_is_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    helper, broken, bad = tmp_path / "helper", tmp_path / "broken", tmp_path / "bad"
    helper.write_text('{"credsStore": "desktop", "auths": {}}')
    broken.write_text("s3cret{")
    bad.write_text('{"auths": {"reg.example": {"auth": "s3cret"}}}')
    with caplog.at_level(logging.WARNING):
        found = Credentials(paths=(str(helper), str(broken), str(bad), str(tmp_path / "none")))
        assert [found.login("reg.example/f") for _ in range(2)] == [{}, {}]
    assert len(caplog.messages) == 4
    for words in ("which a node does not run", "must be JSON", "base64 of USER:PASSWORD", "cannot be read"):
        assert words in caplog.text
    assert "s3cret" not in caplog.text


def test_a_bad_inline_login_is_refused_at_the_start_and_not_shown() -> None:
    problems: list[str] = []
    read(DriverSettings, {"FN_DOCKER_AUTH": "s3cret"}, problems)
    [problem] = problems
    assert "must be JSON" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize("error", [PermissionError("no"), RuntimeError("no home")])
def test_a_home_that_cannot_be_looked_at_is_none_and_a_named_one_is_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(path: Path) -> Path:
        raise error

    monkeypatch.setattr(Path, "expanduser", refused)
    assert Credentials(paths=(DEFAULT,)).login("reg.example/f") == {}
    assert caplog.messages == []
    assert Credentials(paths=("/named",)).login("reg.example/f") == {}
    assert "/named cannot be read" in caplog.text


def test_json_that_is_too_deep_is_told_as_none() -> None:
    with pytest.raises(ValueError, match="must be JSON"):
        parsed("[" * 200_000)
