"""A pod's network made by hand, and in it the engine as deploy/kubernetes starts it: engine.sh and dockerd.

pod 10.244.1.17 --- veth --- the cluster: an API pod, a DNS server, metadata, and the internet
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.engine.packages import Missing, need
from tests.kubernetes.rendered import KUBERNETES

SCRIPT = KUBERNETES / "components" / "engine-config" / "engine.sh"
CONFIG = KUBERNETES / "components" / "engine-config" / "daemon.json"
LIMIT = 120.0
POD, GATEWAY, BRIDGE = "10.244.1.17", "10.244.1.1", "172.30.255.1"
MTU = 1450
CLUSTER = {
    "api pod": ("10.244.2.5", 8082),
    "api service": ("10.96.40.7", 8080),
    "metadata": ("169.254.169.254", 80),
    "kubelet": (GATEWAY, 10250),
    "database outside": ("192.168.7.7", 5432),
    "machine with a public address": ("198.51.100.9", 10250),
    "name server": ("10.96.0.10", 53),
    "name server, other port": ("10.96.0.10", 8080),
    "registry of the cluster": ("10.50.0.9", 5000),
    "internet": ("203.0.113.7", 443),
}
"""Who listens where, outside the pod."""
OWN = {"runner": (POD, 8080), "admin port of the runner": (POD, 8081), "runner by the bridge": (BRIDGE, 8080)}
"""Who listens in the pod."""

_SERVER = """
import sys, threading, http.server
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"reached")
    def log_message(self, *args): pass
servers = [http.server.ThreadingHTTPServer((host, int(port)), Ok)
           for host, _, port in (one.rpartition(":") for one in sys.argv[1:])]
for server in servers: threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
"""


@dataclass
class EnginePod:
    """*host* is the engine's address for programs of this machine."""

    namespace: str
    folder: Path
    host: str
    engine: subprocess.Popen[bytes] | None = None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs *command* on the pod's network."""
        return subprocess.run(
            [*self._inside(), *command],
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )

    def _inside(self) -> list[str]:
        return [need("nsenter", "util-linux"), f"--net=/run/netns/{self.namespace}"]

    def environ(self) -> dict[str, str]:
        """As in the manifests, but for the folders."""
        return {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            "ENGINE_HOST": self.host,
            "ENGINE_DATA": str(self.folder / "volume" / "docker"),
            "ENGINE_ALLOW": "10.50.0.0/24",
            "ENGINE_DENY": "198.51.100.0/24",
        }

    def ready(self) -> bool:
        """What the probes of the container ask."""
        return self.run("sh", str(SCRIPT), "ready").returncode == 0

    def start(self) -> None:
        """Starts the engine as its container does, and returns when its startup probe says yes."""
        # /run is the container's own; what it finds there must not be another engine's.
        prepare = f"mount --bind {self.folder}/resolv.conf /etc/resolv.conf && mount -t tmpfs tmpfs /run && "
        command = prepare + f"exec sh {SCRIPT} --config-file={CONFIG}"
        with (self.folder / "log").open("ab") as log:
            self.engine = subprocess.Popen(
                # It must not outlive a test run that is killed.
                [
                    *(need("setpriv", "util-linux"), "--pdeathsig", "TERM"),
                    *(*self._inside(), "unshare", "--mount", "sh", "-c", command),
                ],
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + LIMIT
        while not self.ready():
            if self.engine.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.2)

    def stop(self) -> None:
        """SIGTERM, as a kubelet does."""
        if self.engine:
            self.engine.terminate()
            self.engine.wait(LIMIT)
            self.engine = None


@contextmanager
def engine_pod() -> Iterator[EnginePod]:
    """A pod whose engine runs; raises Missing where there can be none."""
    if os.geteuid() != 0:
        raise Missing("a pod's network needs root")
    need("dockerd", "docker.io")
    need("iptables", "iptables")
    folder = Path(tempfile.mkdtemp(prefix="fn-pod-"))
    names = f"fnpod{os.getpid()}", f"fncluster{os.getpid()}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        _connect(*names)
        (folder / "resolv.conf").write_text("search fn-hybrid.svc.cluster.local\nnameserver 10.96.0.10\n")
        (folder / "volume").mkdir()
        # As a volume with fsGroup looks.
        os.chown(folder / "volume", 0, 65532)
        (folder / "volume").chmod(0o2775)
        pod = EnginePod(names[0], folder, f"unix://{folder}/docker.sock")
        stack.callback(pod.stop)
        for name, listeners in ((names[1], CLUSTER), (names[0], OWN)):
            places = {(host, port) for host, port in listeners.values() if host != BRIDGE}
            _serve(
                stack, name, [f"{'0.0.0.0' if name == names[0] else host}:{port}" for host, port in places]
            )
        pod.start()
        yield pod


def _ip(*words: str) -> None:
    subprocess.run([need("ip", "iproute2"), *words], check=True, capture_output=True, timeout=LIMIT)


def _connect(pod: str, cluster: str) -> None:
    _ip(
        "link",
        "add",
        "eth0",
        "netns",
        pod,
        "mtu",
        str(MTU),
        "type",
        "veth",
        "peer",
        "name",
        "pod",
        "netns",
        cluster,
    )
    for name in (pod, cluster):
        _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", pod, "addr", "add", f"{POD}/24", "dev", "eth0")
    _ip("-n", pod, "link", "set", "eth0", "up")
    _ip("-n", pod, "route", "add", "default", "via", GATEWAY)
    _ip("-n", cluster, "addr", "add", f"{GATEWAY}/24", "dev", "pod")
    _ip("-n", cluster, "link", "set", "pod", "up")
    for host in {host for host, _ in CLUSTER.values()} - {GATEWAY}:
        _ip("-n", cluster, "addr", "add", f"{host}/32", "dev", "lo")


def _serve(stack: ExitStack, namespace: str, places: Sequence[str]) -> None:
    server = subprocess.Popen(
        [need("ip", "iproute2"), "netns", "exec", namespace, sys.executable, "-c", _SERVER, *sorted(places)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert server.stdout
    stack.callback(server.stdout.close)
    stack.callback(server.wait)
    stack.callback(server.kill)
    assert server.stdout.readline() == b"ready\n"
