"""A server of the suite's own: a process that tests may kill, start again, and hold still."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.engine.packages import Missing
from tests.servers.ports import free_port

_PATIENCE = 240.0


class Server(ABC):
    """*folder* has its data and its log. It keeps its port over restarts."""

    user = "nobody"
    """Whom it runs as when the suite runs as root: databases refuse to run as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"

    @property
    @abstractmethod
    def url(self) -> str:
        """Where a node finds it, as a setting has it."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The command line that runs it in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers."""

    def prepare(self) -> None:
        """Makes its data, once."""
        self.own(self.folder)

    def run(self, *command: str) -> None:
        """Runs *command* to its end, as the server's user; raises Missing with what it said."""
        done = subprocess.run(
            command,
            user=self._user(),
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            cwd="/",
        )
        if done.returncode:
            raise Missing(f"{command[0]} failed: {(done.stderr or done.stdout).decode()[-500:]}")

    def start(self) -> None:
        """Starts it and returns when it answers; raises Missing with the end of its log."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                user=self._user(),
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        deadline = time.monotonic() + _PATIENCE
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Missing(f"{self.command()[0]} did not start: {self.last_words()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Kills it with all its processes, as a crash would."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Holds it still, and returns when it is: connections stay, answers do not come."""
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + _PATIENCE
        # A thread on another core goes on, and may answer, until the signal has reached it.
        while not all(_still(process) for process in self._processes()):
            assert time.monotonic() < deadline, f"{self.command()[0]} does not stand still"
            time.sleep(0.001)

    def resume(self) -> None:
        """Lets it go on."""
        self._signal(signal.SIGCONT)

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-1000:] if self._log.exists() else ""

    def own(self, folder: Path) -> None:
        """Gives *folder* to the server's user."""
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)

    def _environ(self) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.folder)}  # the suite's is not theirs to write

    def _user(self) -> str | None:
        return self.user if os.geteuid() == 0 else None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        for process in self._processes():
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue

    def _processes(self) -> list[int]:
        """The server's process and all below it: those of PostgreSQL are in groups of their own."""
        assert self._process is not None
        below: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            below.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found = [self._process.pid]
        for process in found:
            found += below.get(process, [])
        return found


def _still(process: int) -> bool:
    """Whether none of its threads runs."""
    for stat in Path(f"/proc/{process}/task").glob("*/stat"):
        try:
            state = stat.read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # it has ended
        if state not in "TtZX":
            return False
    return True


@contextmanager
def running(kind: type[Server], *arguments: object) -> Iterator[Server]:
    """A new server of *kind*, with data of its own."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind.__name__.lower()}-"))
    folder.chmod(0o755)
    server = kind(folder, *arguments)
    try:
        if os.geteuid() == 0:
            pwd.getpwnam(server.user)
        server.prepare()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
