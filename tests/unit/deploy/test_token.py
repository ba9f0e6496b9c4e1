"""``fn-node token``: what it makes is what nodes read."""

from __future__ import annotations

import contextlib
import datetime
import io
from pathlib import Path

import pytest

from deploy.__main__ import main
from deploy.token import Wish, made
from services.identity.tokens import digest, read
from shared_models.access import Role


def told(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(["token", *arguments])
    return code, out.getvalue(), err.getvalue()


def test_the_entry_is_one_of_the_token() -> None:
    code, entry, said = told("--name", "ci", "--role", "developer", "--app", "shop", "--app", "bank")
    assert code == 0
    token = said.split()[-1]
    assert token.startswith("fnh_")
    assert token not in entry
    found = read(entry.encode())[digest(token)]
    assert (found.principal.name, found.principal.role) == ("ci", Role.DEVELOPER)
    assert found.principal.apps == {"shop", "bank"}
    assert found.expires is None


def test_a_file_gets_the_entry_and_the_token_is_printed_alone(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    tokens = []
    for name in ("one", "two"):
        code, out, said = told("--name", name, "--role", "admin", "--file", str(file))
        assert (code, said, out.count("\n")) == (0, "", 1)
        tokens.append(out.strip())
    entries = read(file.read_bytes())
    assert [entries[digest(token)].principal.name for token in tokens] == ["one", "two"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_without_its_last_line_feed_stays_a_list(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    file.write_text(made(Wish(name="one", role="admin", apps=()))[1].rstrip("\n"))
    assert told("--name", "two", "--role", "admin", "--file", str(file))[0] == 0
    assert len(read(file.read_bytes())) == 2


def test_a_file_with_an_empty_list_gets_the_entry_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    file.write_text("[]\n")
    code, out, _ = told("--name", "one", "--role", "admin", "--file", str(file))
    assert code == 0
    assert read(file.read_bytes())[digest(out.strip())].principal.name == "one"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("junk\n", "it is not YAML in line 2"),
        ("- name: ci\n", "token 1 (ci): sha256: must be 64 hexadecimal digits"),
    ],
)
def test_a_file_that_nodes_could_not_read_is_left_as_it_is(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "tokens.yml"
    file.write_text(text)
    code, out, said = told("--name", "one", "--role", "admin", "--file", str(file))
    assert (code, out, file.read_text()) == (2, "", text)
    assert f"fn-node: --file: {file} is no file of tokens: {why}" in said
    assert said.endswith("; nothing was added\n")


def test_a_role_that_there_is_not_is_told_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["token", "--name", "x", "--role", "boss"])
    said = capsys.readouterr().err
    assert "invalid choice: 'boss'" in said
    assert "<Role" not in said


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    code, out, said = told("--name", "ci", "--role", "admin", "--file", str(tmp_path / "no" / "tokens"))
    assert (code, out) == (1, "")
    assert f"{tmp_path}/no/tokens: No such file or directory" in said


def test_entries_of_several_make_a_file() -> None:
    pairs = [
        made(Wish(name="root", role="admin", apps=())),
        made(Wish(name='an "odd": name # ü', role="viewer", apps=("*",))),
        made(
            Wish(name="true", role="invoker", apps=("shop", "shop"), days=7),
            datetime.datetime.now(datetime.UTC),
        ),
    ]
    entries = read("".join(entry for _, entry in pairs).encode())
    names = [entries[digest(token)].principal.name for token, _ in pairs]
    assert names == ["root", 'an "odd": name # ü', "true"]


def test_a_token_lasts_for_as_many_days_as_are_asked_for() -> None:
    now = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    token, entry = made(Wish(name="ci", role="viewer", apps=("*",), days=31), now)
    expires = read(entry.encode())[digest(token)].expires
    assert expires == datetime.datetime(2026, 2, 1, 12, tzinfo=datetime.UTC).timestamp()


def test_no_two_tokens_are_the_same() -> None:
    wish = Wish(name="ci", role="admin", apps=())
    assert len({made(wish)[0] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", "ci", "--role", "developer"], "--app: must name the apps"),
        (["--name", "ci", "--role", "admin", "--app", "shop"], "an admin has all apps"),
        (["--name", "", "--role", "admin"], "--name: must have 1 to 128 characters"),
        (["--name", "ci", "--role", "viewer", "--app", "a b"], "'a b' is no name of an app"),
        (["--name", "ci", "--role", "viewer", "--app", "*", "--days", "0"], "--days: must be"),
    ],
)
def test_what_cannot_be_meant_is_named(arguments: list[str], words: str) -> None:
    code, entry, said = told(*arguments)
    assert (code, entry) == (2, "")
    assert words in said
