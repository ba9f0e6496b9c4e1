"""What ``make run`` makes sure of before anything starts: free ports, a writable folder, a token."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from pathlib import Path

HOST = "127.0.0.1"


class CannotStart(Exception):
    """One line for the user: what is wrong, and what to do."""


def check_ports(api: int, runner: int) -> None:
    """Raises CannotStart unless both nodes can have their ports."""
    check_port(api, "PORT")
    check_port(runner, "RUNNER_PORT")
    if api == runner:
        raise CannotStart(f"PORT and RUNNER_PORT are both {api}: each node needs one of its own")


def check_port(port: int, variable: str) -> None:
    """Raises CannotStart when *port* is taken; *variable* is what chooses another."""
    if not 0 < port < 65536:
        raise CannotStart(f"{variable}={port}: must be a port between 1 and 65535")
    with socket.socket() as probe:
        # As the server itself will: a port whose last connections still linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise CannotStart(
                f"port {port} is taken or not allowed ({exc.strerror}): stop what "
                f"listens there, or choose another: make run {variable}={(port + 1000) % 65536}"
            ) from None


def prepare_data(folder: Path) -> Path:
    """*folder*, made and found writable, as an absolute path; raises CannotStart."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise CannotStart(
            f"the data folder {folder} cannot be written ({exc.strerror}): "
            "make it writable, or choose another: make run DATA=..."
        ) from None
    return folder.resolve()


def runner_token(data: Path) -> str:
    """The secret between both nodes: made once, readable for its owner only, and kept."""
    path = data / "runner.token"
    try:
        with contextlib.suppress(FileNotFoundError):
            if token := path.read_text().strip():
                path.chmod(0o600)
                return token
            path.unlink()
        token = secrets.token_urlsafe(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(token + "\n")
    except OSError as exc:
        raise CannotStart(f"the runner token {path} cannot be kept: {exc.strerror}") from None
    return token
