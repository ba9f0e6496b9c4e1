from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from deploy.ground import CannotStart, check_port, check_ports, prepare_data, runner_token
from deploy.run import environs, lines_to_try


def test_a_taken_port_is_named_with_the_way_to_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"port {port} is taken.*make run RUNNER_PORT="):
            check_port(port, "RUNNER_PORT")


def test_a_free_port_is_left_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_port(port, "PORT")
    check_port(port, "PORT")


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_number_that_is_no_port_is_named_with_the_rule(port: int) -> None:
    with pytest.raises(CannotStart, match=f"PORT={port}: must be a port between 1 and 65535"):
        check_port(port, "PORT")


def test_both_nodes_cannot_have_the_same_port() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(CannotStart, match=f"both {port}"):
        check_ports(port, port)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotStart, match=r"data folder .*file/data cannot be written"):
        prepare_data(tmp_path / "file" / "data")


def test_the_data_folder_is_made(tmp_path: Path) -> None:
    assert prepare_data(tmp_path / "a" / "b").is_dir()


def test_the_runner_token_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    token = runner_token(tmp_path)
    assert len(token) >= 32
    assert stat.S_IMODE((tmp_path / "runner.token").stat().st_mode) == 0o600
    assert runner_token(tmp_path) == token


def test_a_token_that_others_can_read_is_closed_again(tmp_path: Path) -> None:
    (tmp_path / "runner.token").write_text("known\n")
    (tmp_path / "runner.token").chmod(0o644)
    assert runner_token(tmp_path) == "known"
    assert stat.S_IMODE((tmp_path / "runner.token").stat().st_mode) == 0o600


def test_an_empty_token_file_gets_a_token(tmp_path: Path) -> None:
    (tmp_path / "runner.token").touch()
    assert runner_token(tmp_path)


def test_the_two_nodes_do_not_share_what_only_one_may_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FN_DB_URL", "sqlite:///elsewhere.db")
    monkeypatch.setenv("FN_LOG_LEVEL", "debug")
    api, runner = environs(tmp_path, "sesame", 1, 2, "/tmp/s")
    assert api["FN_DB_URL"] == f"sqlite:///{tmp_path}/fn.db"
    assert not {"FN_DB_URL", "FN_MQ_URL", "FN_LOGSTORE_URL"} & set(runner)
    assert api["FN_RUNNER_TOKEN"] == runner["FN_RUNNER_TOKEN"] == "sesame"
    assert api["FN_LOG_LEVEL"] == runner["FN_LOG_LEVEL"] == "debug"
    assert os.environ["FN_DB_URL"] == "sqlite:///elsewhere.db"


def test_ports_of_the_caller_are_those_of_the_api_node_and_the_runner_node_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FN_ADMIN_PORT", "9000")
    monkeypatch.setenv("FN_RUNNER_API_PORT", "9001")
    api, runner = environs(tmp_path, "sesame", 1, 2, "/tmp/s")
    assert (api["FN_ADMIN_PORT"], runner["FN_ADMIN_PORT"]) == ("9000", "")
    assert api["FN_RUNNER_API_PORT"] == "9001"
    assert runner["FN_RUNNER_API_URL"] == "http://127.0.0.1:9001"
    monkeypatch.delenv("FN_RUNNER_API_PORT")
    assert environs(tmp_path, "sesame", 1, 2, "/tmp/s")[1]["FN_RUNNER_API_URL"] == "http://127.0.0.1:1"


def test_commands_to_try_show_the_token_of_the_caller_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FN_TOKEN", raising=False)
    assert "Authorization" not in lines_to_try("http://api", "http://runner", "f")
    monkeypatch.setenv("FN_TOKEN", "hush")
    lines = lines_to_try("http://api", "http://runner", "f")
    assert lines.count('curl -s -H "Authorization: Bearer $FN_TOKEN" http://api/') == 2
    assert "hush" not in lines
