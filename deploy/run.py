"""``make run``: an API node and a runner node as two processes, with the example function deployed.

For development: functions run as processes of this machine, everything listens on the loopback
address only, and all data is in one folder. Ends with SIGINT or SIGTERM, and leaves no process
behind; when one node ends, so does the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deploy.example import Unreachable, deploy_hello, invoke, not_ready
from deploy.ground import HOST, CannotStart, check_ports, prepare_data, runner_token

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 60.0
"""Seconds that both nodes get to become ready."""
STOP_LIMIT = 8.0
"""Seconds that each node gets to end before it is killed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs both nodes until a signal; answers the exit code."""
    parser = argparse.ArgumentParser(prog="make run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder for everything that is kept")
    parser.add_argument("--port", type=int, default=8080, help="port of the API node (make run PORT=...)")
    parser.add_argument(
        "--runner-port", type=int, default=8081, help="port of the runner node (make run RUNNER_PORT=...)"
    )
    options = parser.parse_args(arguments)
    try:
        check_ports(options.port, options.runner_port)
        data = prepare_data(options.data)
        return asyncio.run(_run(data, runner_token(data), options.port, options.runner_port))
    except CannotStart as exc:
        print(f"make run: {exc}", file=sys.stderr)
        return 1


# -- the two nodes ---------------------------------------------------------------------------------


async def _run(data: Path, token: str, port: int, runner_port: int) -> int:
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    api, runner = f"http://localhost:{port}", f"http://localhost:{runner_port}"
    stop = asyncio.create_task(signals.get())
    # Sockets of functions live in a short folder of their own: a socket's path has 107 bytes at most.
    sockets = tempfile.mkdtemp(prefix="fn-")
    try:
        api_environ, runner_environ = environs(data, token, port, runner_port, sockets)
        async with _node("api", api_environ, signals) as api_node:
            nodes = {"api": api_node}
            # First the one that the other asks: a runner node that finds none says so, and asks again late.
            code = await _beside(nodes, stop, _until_ready("api", api))
            if code is not None:
                return code
            async with _node("runner", runner_environ, signals) as nodes["runner"]:
                code = await _beside(nodes, stop, _introduce(api, runner))
                if code is None:
                    code = await _beside(nodes, stop, asyncio.Event().wait())
                return code or 0
    finally:
        stop.cancel()
        shutil.rmtree(sockets, ignore_errors=True)


def environs(
    data: Path, token: str, port: int, runner_port: int, sockets: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Variables of the API node and of the runner node. What they do not fix is the caller's."""
    both = {
        "FN_HOST": HOST,
        "FN_RUNNER_TOKEN": token,
        "PYTHONUNBUFFERED": "1",
        # The nodes run in the data folder's neighbourhood wherever the user stands.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    api = {
        "FN_PORT": str(port),
        "FN_DB_URL": f"sqlite:///{data / 'fn.db'}",
        "FN_LOGSTORE_URL": f"sqlite:///{data / 'fn.db'}",
        "FN_MQ_URL": f"sqlite:///{data / 'queue.db'}",
        "FN_PUBLIC_LB_URL": f"http://localhost:{runner_port}",
        # Only one of two nodes on one machine can have a port that the caller has set.
        "FN_ADMIN_PORT": os.environ.get("FN_ADMIN_PORT", ""),
    }
    runner = {
        "FN_PORT": str(runner_port),
        "FN_RUNNER_API_URL": f"http://{HOST}:{os.environ.get('FN_RUNNER_API_PORT') or port}",
        "FN_ADMIN_PORT": "",
        "FN_DRIVER": "process",
        "FN_PROCESS_IMAGES": str(ROOT / "examples"),
        "FN_IOFS_PATH": sockets,
        "FN_SPOOL_PATH": str(data / "spool"),
    }
    fixed = {*both, *api, *runner, "FN_NODE_TYPE", "FN_NODE_ID"}
    callers = {name: value for name, value in os.environ.items() if name not in fixed}
    defaults = {
        # Shorter than STOP_LIMIT, so that a node that is stopped still hands in what it has.
        "FN_HTTP_DRAIN": "5",
        "FN_DRAIN_SECS": "5",
        "FN_PROCESS_VENVS": str(data / "venvs"),
    }
    return {**defaults, **callers, **both, **api}, {**defaults, **callers, **both, **runner}


@asynccontextmanager
async def _node(
    kind: str, environ: Mapping[str, str], signals: asyncio.Queue[int]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A node as a process, its log on our output; when the block ends, so does the process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy", kind,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=environ, limit=1 << 20,
        # Ctrl-C in a terminal reaches a whole group: the nodes are stopped by us, in order.
        start_new_session=True, preexec_fn=_die_with_parent,
    )  # fmt: skip
    printer = asyncio.create_task(_print_lines(kind, process))
    try:
        yield process
    finally:
        if process.returncode is None:
            _send(process, signal.SIGTERM)
            hurry = asyncio.create_task(signals.get())
            done = asyncio.create_task(process.wait())
            await asyncio.wait((hurry, done), timeout=STOP_LIMIT, return_when=asyncio.FIRST_COMPLETED)
            why = f"it did not end in {STOP_LIMIT:.0f} s"
            if hurry.done():
                signals.put_nowait(hurry.result())  # for the other node, too
                why = "asked for with a second signal"
            hurry.cancel()
            if process.returncode is None and not done.done():
                _say(f"the {kind} node is killed: {why}")
                _send(process, signal.SIGKILL)
            await done
        await asyncio.wait([printer], timeout=1)
        printer.cancel()


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # Not process.send_signal(): that looks for the exit code first, and takes it from asyncio's own waiter.
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def _die_with_parent() -> None:
    """In the new process, before it becomes a node: a killed ``make run`` must leave no node behind."""
    if _prctl is not None:
        _prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


async def _print_lines(kind: str, process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # a line beyond the limit: the reader dropped it
            continue
        if not line:
            return
        _say(line.decode("utf-8", "replace").rstrip(), kind)


def _say(text: str, who: str = "run") -> None:
    # The terminal or the reader of a pipe may be gone; that must not keep the nodes from being stopped.
    with contextlib.suppress(OSError, ValueError):
        print(f"{who:<6} | {text}", flush=True)


# -- while they run --------------------------------------------------------------------------------


async def _beside(
    nodes: Mapping[str, asyncio.subprocess.Process],
    stop: asyncio.Task[int],
    work: Coroutine[Any, Any, object],
) -> int | None:
    """Does *work* while *nodes* run. None when it is done; else the exit code, with its cause told.

    0 for a signal, 1 when a node ended by itself or *work* failed.
    """
    doing = asyncio.create_task(work)
    ended = [asyncio.create_task(_ended(kind, process)) for kind, process in nodes.items()]
    try:
        await asyncio.wait((stop, doing, *ended), return_when=asyncio.FIRST_COMPLETED)
        cause = next((task.result() for task in ended if task.done()), "")
        if not cause and not stop.done():
            if (error := doing.exception()) is None:
                return None
            cause = f"the start failed: {error}"
    finally:
        for task in (*ended, doing):
            task.cancel()
    if cause:
        _say(cause)
    _say("stopping both nodes (once more: at once)")
    return 1 if cause else 0


async def _ended(kind: str, process: asyncio.subprocess.Process) -> str:
    code = await process.wait()
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"the {kind} node ended by itself ({how}): its last lines above say why"


async def _introduce(api: str, runner: str) -> None:
    """Waits until the runner node is ready, too, deploys the example, and says what to try."""
    await _until_ready("runner", runner)
    hello = await asyncio.to_thread(deploy_hello, api)
    _say("calling hello; its very first call makes its virtual environment, which may take a while")
    try:
        answer = await asyncio.to_thread(invoke, runner, hello)
    except Unreachable as exc:
        _say(f"the example does not work: {exc}")
    else:
        _say(f"hello answers {answer}")
    print(lines_to_try(api, runner, hello), flush=True)


async def _until_ready(kind: str, url: str) -> None:
    """Returns when the node says that it is ready; raises Unreachable with its last reason."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + START_LIMIT
    while reason := await asyncio.to_thread(not_ready, url):
        if loop.time() > limit:
            raise Unreachable(f"the {kind} node is not ready after {START_LIMIT:.0f} s: {reason}")
        await asyncio.sleep(0.1)


def lines_to_try(api: str, runner: str, fn_id: str) -> str:
    """Three commands that work as they are, in any POSIX shell."""
    calls = f"{api}/v2/fns/{fn_id}/calls"
    read = "curl -s" + (' -H "Authorization: Bearer $FN_TOKEN"' if os.environ.get("FN_TOKEN") else "")
    detached = f"curl -s -d '{{\"name\":\"Ada\"}}' -H 'Fn-Invoke-Type: detached' {runner}/invoke/{fn_id}"
    needs = "" if shutil.which("curl") else " (curl is needed, and missing here)"
    return f"""
Ready. Try in another terminal{needs}: invoke the function, call it through its trigger, and run it
detached, then read its record and its log.

  curl -d '{{"name":"Ada"}}' {runner}/invoke/{fn_id}

  curl {runner}/t/hello/hello

  id=$({detached} | cut -d'"' -f4); sleep 2; {read} {calls}/$id; {read} {calls}/$id/log

Ctrl-C ends both nodes; the data is kept.
"""


def _find_prctl() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    prctl: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    return prctl


_prctl = _find_prctl()

if __name__ == "__main__":
    sys.exit(main())
