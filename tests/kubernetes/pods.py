"""Pods without a cluster: the processes, probes and stops of the manifests, done as a kubelet does them.

What differs from a pod: volumes are folders, ports are free ones of this machine, functions run as processes.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.kubernetes.rendered import ROOT, Container, Manifests, Object, Workload, clean_environ
from tests.servers.ports import free_port
from tests.tasks import stopped

LAG = 1.0
"""Seconds until a Service knows that a pod is being stopped."""
_PORTS = {"http": "FN_PORT", "admin": "FN_ADMIN_PORT", "runner-api": "FN_RUNNER_API_PORT"}


class LocalPod:
    """One pod of *workload*, whose volumes are below *folder*; its claims are those of its name.

    *environ* wins over what the manifests say; *secrets* are the folders that Secrets are mounted from.
    """

    def __init__(
        self,
        found: Manifests,
        workload: Workload,
        name: str,
        folder: Path,
        environ: Mapping[str, str],
        secrets: Mapping[str, Path],
    ) -> None:
        self.name = name
        self.workload = workload
        self.ready = False
        self.restarts: list[str] = []
        """Why a kubelet would have started the container again."""
        self.log = folder / f"{name}.log"
        (self.main,) = [one for one in workload.containers if not one.first]
        self.ports = {port: free_port() for port in self.main.ports}
        self._found = found
        self._folder = folder
        self._own = environ
        self._secrets = secrets
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Init containers, then the node; returns when the pod is ready, as its probes say."""
        for container in self.workload.containers:
            if container.first and not container.stays:
                code = await (await self._run(container)).wait()
                assert code == 0, f"{container.name}: {self.log.read_text()}"
        self._process = await self._run(self.main)
        startup = self.main.probes["startupProbe"]
        for _ in range(startup["failureThreshold"]):
            if self._process.returncode is not None or await self._passes(startup):
                break
            await asyncio.sleep(startup["periodSeconds"])
        assert self._process.returncode is None, self.log.read_text()
        self._watch = asyncio.create_task(self._probe())
        async with asyncio.timeout(120):
            while not self.ready:
                await asyncio.sleep(0.05)

    async def stop(self) -> float:
        """As a kubelet stops it; answers how many seconds it took. Fails beyond the pod's grace period."""
        assert self._process
        loop = asyncio.get_running_loop()
        began = loop.time()
        before: Object = self.main.body.get("lifecycle", {}).get("preStop", {})
        assert before.keys() <= {"sleep"}
        await asyncio.sleep(before.get("sleep", {}).get("seconds", 0))
        self._process.terminate()
        grace = self.workload.pod["terminationGracePeriodSeconds"]
        asyncio.get_running_loop().call_later(LAG, self._leave)
        try:
            async with asyncio.timeout(grace - (loop.time() - began)):
                code = await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} is killed after {grace} s: {self.log.read_text()}") from None
        finally:
            await self.kill()
        assert code == 0, self.log.read_text()
        return loop.time() - began

    async def kill(self) -> None:
        """Nothing of it is left."""
        self._leave()
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
        if self._watch:
            await stopped(self._watch)

    def _note(self, what: str) -> None:
        with self.log.open("a") as log:
            log.write(f"--- {datetime.datetime.now(datetime.UTC):%H:%M:%S.%f} {what}\n")

    def _leave(self) -> None:
        if self.ready:
            self._note("leaves its Services")
        self.ready = False
        if self._watch:
            self._watch.cancel()

    async def _run(self, container: Container) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *container.body["command"], *container.body["args"],
                env=self._environ(container), cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _environ(self, container: Container) -> dict[str, str]:
        environ = self._found.environ(container, {})
        for one in container.body.get("env", []):
            if one.get("valueFrom") == {"fieldRef": {"fieldPath": "metadata.name"}}:
                # A node ends what an earlier one of its id left: other suites have pods of this name, too.
                environ[one["name"]] = f"{self.name}-{os.getpid()}"
        folders = {mount["mountPath"]: str(self._volume(mount["name"])) for mount in container.mounts}
        inside = re.compile("|".join(map(re.escape, sorted(folders, key=len, reverse=True))))
        environ = {name: inside.sub(lambda path: folders[path[0]], value) for name, value in environ.items()}
        environ |= self._own
        environ |= {_PORTS[port]: str(number) for port, number in self.ports.items() if not container.first}
        programs = str(Path(sys.executable).parent)
        path = os.pathsep.join([programs, os.environ.get("PATH", "")])
        return clean_environ() | environ | {"PATH": path, "FN_HOST": "127.0.0.1"}

    def _volume(self, name: str) -> Path:
        """A claim is the same folder for all pods of its name, or for the next pod of this one's name."""
        volume = self.workload.volumes[name]
        if "secret" in volume:
            return self._secrets[volume["secret"]["secretName"]]
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        folder = self._folder / "volumes" / (claim or f"{self.name}-{name}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    async def _probe(self) -> None:
        """Readiness and liveness, each in its own time, for ever."""
        await asyncio.gather(self._look("readinessProbe"), self._look("livenessProbe"))

    async def _look(self, kind: str) -> None:
        probe = self.main.probes[kind]
        failures = 0
        while True:
            passes = await self._passes(probe)
            failures = 0 if passes else failures + 1
            if kind == "readinessProbe":
                ready = not failures or (self.ready and failures < probe["failureThreshold"])
                if ready is not self.ready:
                    self._note(f"{'ready' if ready else 'not ready'} by its probe")
                self.ready = ready
            elif failures >= probe["failureThreshold"]:
                self.restarts.append(f"{self.name}: {failures} failures of its liveness probe")
            await asyncio.sleep(probe["periodSeconds"])

    async def _passes(self, probe: Object) -> bool:
        asked = probe["httpGet"]
        scheme = asked.get("scheme", "HTTP").lower()
        url = f"{scheme}://127.0.0.1:{self.ports[asked['port']]}{asked['path']}"
        try:
            async with (
                # On a machine that runs other tests a node may be slow, and is not broken for that.
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(probe["timeoutSeconds"] + 10)) as http,
                http.get(url, ssl=False) as answer,  # a kubelet checks no certificate
            ):
                return 200 <= answer.status < 400
        except (aiohttp.ClientError, TimeoutError):
            return False


class LocalService:
    """A Service: each connection goes to the next of *pods* that is ready. Made by ``serving``."""

    def __init__(self, target: str, port: int, pods: list[LocalPod], secure: bool) -> None:
        self.port = port
        self.url = f"{'https' if secure else 'http'}://127.0.0.1:{port}"
        self._target = target
        self._pods = pods
        self._turn = itertools.count()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from its connection to the end of it."""
        ready = [pod for pod in self._pods if pod.ready]
        try:
            if not ready:
                return
            pod = ready[next(self._turn) % len(ready)]
            there, back = await asyncio.open_connection("127.0.0.1", pod.ports[self._target])
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
        except OSError:
            pass  # the client sees its connection close, as behind a Service
        finally:
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def serving(
    found: Manifests, name: str, pods: list[LocalPod], *, secure: bool = False
) -> AsyncIterator[LocalService]:
    """The Service *name* of the manifests before *pods*, which may change; *secure*: they speak TLS."""
    (port,) = found.of("Service")[name]["spec"]["ports"]
    service = LocalService(port["targetPort"], free_port(), pods, secure)
    clients: set[asyncio.Task[None]] = set()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.create_task(service.connected(reader, writer))
        clients.add(client)
        client.add_done_callback(clients.discard)

    server = await asyncio.start_server(take, "127.0.0.1", service.port)
    try:
        yield service
    finally:
        server.close()
        for client in list(clients):
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
