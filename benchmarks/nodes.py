"""Nodes and bare proxies, as processes, with functions to call."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, ask, free_port, process, until

FUNCTIONS = ROOT / "benchmarks" / "functions"
ROOM = str(64 << 30)
"""Bytes that nodes believe to have, so that callers are the limit: functions take less than they may."""


@dataclass(frozen=True, slots=True)
class Node:
    """A process that serves at *url*. *api*: where its functions are made; its own, or its API node's."""

    url: str
    pid: int
    api: str

    def deploy(
        self, name: str, image: str = "quick", config: Mapping[str, str] | None = None, **more: Any
    ) -> str:
        """A new function, in an app of the same name; answers where it is invoked."""
        app = ask("POST", f"{self.api}/v2/apps", {"name": name})
        assert app, f"{name}: no app"
        wish = {"name": name, "app_id": app["id"], "image": image, "config": dict(config or {}), **more}
        fn = ask("POST", f"{self.api}/v2/fns", wish)
        assert fn, f"{name}: no function"
        return f"{self.url}/invoke/{fn['id']}"

    def warm(self, url: str) -> str:
        """*url*, once a call of it has been answered."""
        until(lambda: ask("POST", url, {}, raw=True) is not None, f"a first call of {url}")
        return url

    def started(self, name: str) -> int:
        """Containers of the function and app *name* that were started so far, those under way included."""
        text = (ask("GET", f"{self.url}/metrics", raw=True) or b"").decode()
        found = re.findall(rf'^fn_container_start_total{{[^}}]*fn_appname="{name}"[^}}]*}} (\S+)', text, re.M)
        return int(sum(map(float, found)))


@contextlib.contextmanager
def node(kind: str, folder: Path, api: str = "", **environ: str) -> Iterator[Node]:
    """A node of *kind* (full, api, runner) with SQLite in *folder* and the process driver."""
    port = free_port()
    common = {
        "FN_PORT": str(port), "FN_HOST": "127.0.0.1", "FN_LOG_LEVEL": "warn", "FN_RUNNER_AUTH": "none",
        "FN_DB_URL": f"sqlite:///{folder}/fn.db", "FN_MQ_URL": f"sqlite:///{folder}/queue.db",
        "FN_DRIVER": "process", "FN_PROCESS_IMAGES": str(FUNCTIONS), "FN_SPOOL_PATH": f"{folder}/spool",
        "FN_MAX_TOTAL_MEMORY_BYTES": ROOM, "FN_MAX_TOTAL_CPU_MCPUS": "1000000", "FN_RUNNER_API_URL": api,
    }  # fmt: skip
    names = {
        "api": ("FN_DRIVER", "FN_PROCESS", "FN_SPOOL", "FN_MAX_TOTAL", "FN_RUNNER_API"),
        "runner": ("FN_DB", "FN_MQ", "FN_RUNNER_AUTH"),
        "full": ("FN_RUNNER_API",),
    }[kind]
    own = {name: value for name, value in common.items() if not name.startswith(names)} | environ
    log = folder / f"{kind}-{port}.log"
    with process([sys.executable, "-m", "deploy", kind], own, log) as pid:
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: ask("GET", f"{url}/readyz", raw=True) is not None, f"{kind} node")
        except TimeoutError as exc:
            raise TimeoutError(f"{exc}: {log.read_text()[-500:]}") from None
        yield Node(url, pid, api or url)


@contextlib.contextmanager
def split_nodes(folder: Path, **environ: str) -> Iterator[tuple[Node, Node]]:
    """An API node, and a runner node that uses it."""
    with node("api", folder) as api, node("runner", folder, api.url, **environ) as runner:
        yield api, runner


@contextlib.contextmanager
def bare_proxy(
    folder: Path, functions: int = 4, config: Mapping[str, str] | None = None, kind: str = "quick"
) -> Iterator[Node]:
    """The bare proxy before *functions* processes of a function with *config*."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        sockets = [folder / f"bare-{port}-{number}" for number in range(functions)]
        for path in sockets:
            code = [sys.executable, str(FUNCTIONS / kind / "func.py")]
            stack.enter_context(process(code, {"FN_LISTENER": f"unix:{path}", **(config or {})}))
        until(lambda: all(path.exists() for path in sockets), "functions of the bare proxy")
        command = [sys.executable, "-m", "benchmarks.bare_proxy", str(port), *map(str, sockets)]
        log = folder / f"bare-{port}.log"
        pid = stack.enter_context(process(command, {}, log))
        url = f"http://127.0.0.1:{port}/"
        until(lambda: ask("POST", url, {}, raw=True) is not None, "bare proxy")
        yield Node(url, pid, url)
