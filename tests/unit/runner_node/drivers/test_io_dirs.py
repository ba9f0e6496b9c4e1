"""Folders for sockets: found again after a crash, short, and nobody else's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from runner_node.drivers import io_dirs


def test_what_a_dead_predecessor_left_is_gone(tmp_path: Path) -> None:
    with io_dirs.node_folder(str(tmp_path), "n1") as first:
        io_dirs.make(f"{first}/C1")
        with io_dirs.node_folder(str(tmp_path), "n1") as second:
            assert second == first
            assert os.listdir(second) == []
    assert os.listdir(tmp_path) == []


def test_nodes_that_share_a_folder_do_not_meet(tmp_path: Path) -> None:
    with io_dirs.node_folder(str(tmp_path), "n1") as one, io_dirs.node_folder(str(tmp_path), "n2") as two:
        io_dirs.make(f"{one}/C1")
        assert one != two
        assert os.listdir(two) == []


def test_a_link_in_the_temporary_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    # Short, since a long one is not used.
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        with io_dirs.node_folder("", "n1") as folder:
            expected = folder
        os.symlink(precious, expected)
        with io_dirs.node_folder("", "n1") as folder:
            assert os.path.dirname(folder) == temporary
            assert folder != expected
    assert (precious / "file").exists()


def test_functions_may_write_whatever_their_user(tmp_path: Path) -> None:
    made = io_dirs.make(str(tmp_path / "io"))
    assert os.stat(made).st_mode & 0o777 == 0o777
