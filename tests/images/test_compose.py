"""docker-compose.yml: what it says, and that its load balancer does what it is there for."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from deploy.runners import examine
from deploy.settings import RunnerNode, read_all
from tests.engine.packages import Missing, missing, need
from tests.images.building import ROOT
from tests.servers.haproxy import HAProxy
from tests.servers.server import Server
from tests.system.nodes import cluster

pytestmark = pytest.mark.system

PASSWORDS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_SECRET", "FN_RUNNER_TOKEN", "GRAFANA_PASSWORD"}
PROMETHEUS = "deploy/compose/prometheus.yml"
CONFIG = ROOT / "deploy" / "compose" / "haproxy.cfg"


def program(name: str, package: str) -> str:
    try:
        return need(name, package)
    except Missing as exc:
        missing(str(exc))


def compose(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in PASSWORDS}
    return subprocess.run(
        [program("docker-compose", "docker-compose"), *arguments],
        cwd=ROOT, env={**kept, **environ}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("compose") / "env"
    file.write_text("".join(f"{name}=pass-{name.lower()}\n" for name in sorted(PASSWORDS)))
    done = compose("--env-file", str(file), "config")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_without_passwords_it_says_what_to_do(tmp_path: Path) -> None:
    empty = tmp_path / "env"
    empty.write_text("")
    done = compose("--env-file", str(empty), "config")
    assert done.returncode != 0
    assert "make compose-env" in done.stderr
    given = re.findall(r"(?:PASSWORD|SECRET|TOKEN|AUTH): +(.+)", (ROOT / "docker-compose.yml").read_text())
    assert len(given) >= 5
    assert all(value.lstrip('"').startswith("${") for value in given)


def test_each_image_has_a_version(composed: dict[str, Any]) -> None:
    versions = {name: service["image"].rpartition(":")[2] for name, service in composed["services"].items()}
    assert not {name for name, version in versions.items() if not re.match(r"v?\d", version)}


@pytest.mark.parametrize(
    ("service", "kind"), [("api", "api"), ("runner-1", "runner"), ("runner-2", "runner")]
)
def test_nodes_get_settings_that_they_know(
    composed: dict[str, Any], service: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {name: str(value) for name, value in composed["services"][service]["environment"].items()}
    tokens = tmp_path / "tokens"
    tokens.write_text("[]")
    _, warnings = read_all({**environ, "FN_API_TOKENS": str(tokens)}, kind)
    assert warnings == []


def test_functions_reach_no_network_of_ours_and_stores_only_api_nodes(composed: dict[str, Any]) -> None:
    members: dict[str, set[str]] = {}
    for name, service in composed["services"].items():
        for network in service.get("networks", {}):
            members.setdefault(network, set()).add(name)
    assert members["engines"] == {"engine-1", "engine-2"}
    assert members["stores"] == {"api", "migrate", "postgres", "redis", "s3"}
    assert all(
        not names & {"engine-1", "engine-2"} for network, names in members.items() if network != "engines"
    )
    published = {name for name, service in composed["services"].items() if service.get("ports")}
    assert published == {"balancer", "prometheus", "grafana"}


@pytest.mark.parametrize("service", ["api", "runner-1", "runner-2"])
def test_nodes_have_no_rights_and_time_to_stop(composed: dict[str, Any], service: str) -> None:
    found = composed["services"][service]
    assert found["read_only"]
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    settings, _ = read_all(
        {name: str(value) for name, value in found["environment"].items() if name != "FN_API_TOKENS"},
        "api" if service == "api" else "runner",
    )
    takes = settings.http.not_ready + settings.http.drain
    if isinstance(settings, RunnerNode):
        assert list(examine(settings.http, settings.agent)) == [], "the longest function would be cut"
        takes = max(takes, settings.agent.drain)
    minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", found["stop_grace_period"]).groups()  # type: ignore[union-attr]
    assert int(minutes or 0) * 60 + int(seconds) >= takes + 20


def test_records_and_logs_are_not_kept_for_ever(composed: dict[str, Any]) -> None:
    kept = composed["services"]["api"]["environment"]
    assert (kept["FN_CALLS_RETENTION"], kept["FN_LOGS_RETENTION"]) == ("30d", "7d")


def test_passwords_are_made_once_and_no_two_are_alike(tmp_path: Path) -> None:
    script, fn_node = ROOT / "deploy" / "compose" / "env.sh", Path(sys.executable).with_name("fn-node")
    found = []
    for _ in range(2):
        subprocess.run([script, fn_node], cwd=tmp_path, check=True, capture_output=True)
        found.append((tmp_path / ".env").read_text())
    assert found[0] == found[1]
    values = dict(line.split("=", 1) for line in found[0].splitlines())
    assert values.keys() == {*PASSWORDS, "FN_TOKEN"}
    assert len(set(values.values())) == len(values)
    assert min(map(len, values.values())) >= 40
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


def test_prometheus_takes_its_configuration() -> None:
    done = subprocess.run(
        [program("promtool", "prometheus"), "check", "config", PROMETHEUS],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_files_that_are_mounted_are_there() -> None:
    """Docker makes a folder of one that is not."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    mounted = [str(volume) for service in services for volume in service.get("volumes", ())]
    here = [ROOT / volume.split(":")[0] for volume in mounted if volume.startswith("./")]
    assert len(here) >= 6
    assert [path for path in here if not path.exists()] == []


def test_haproxy_takes_its_configuration() -> None:
    command = [program("haproxy", "haproxy"), "-c", "-f", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Balancer(HAProxy):
    """The configuration of the compose file, with nodes of this machine in place of its names."""

    def prepare(self) -> None:
        super().prepare()
        config = CONFIG.read_text().replace("bind :8080", f"bind 127.0.0.1:{self.port}")
        for name, template in (("api", "api 1-10 api:8080"), ("runner", "runner 1-10 runner:8080")):
            nodes = [
                f"server {one} 127.0.0.1:{port}" for one, port in self._nodes.items() if one.startswith(name)
            ]
            assert template in config
            config = config.replace(f"server-template {template}", "\n  ".join(nodes))
        (self.folder / "haproxy.cfg").write_text(config)


async def test_one_address_serves_both_tiers_and_leaves_out_who_is_not_ready(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    environ = {"FN_DRIVER": "process", "FN_PROCESS_IMAGES": str(ROOT / "examples")}
    async with cluster(tmp_path, environ, apis=2) as nodes, aiohttp.ClientSession() as http:
        runner = nodes.runner("runner-1")
        await runner.start()
        ports = {node.name: node.port for node in nodes.nodes}
        url = own_server(Balancer, ports).url  # type: ignore[attr-defined]

        async def ask(method: str, path: str, **more: Any) -> tuple[int, Any]:
            async with http.request(method, url + path, **more) as answer:
                return answer.status, await answer.json(content_type=None)

        _, app = await ask("POST", "/v2/apps", json={"name": "shop"})
        _, fn = await ask("POST", "/v2/fns", json={"name": "hello", "image": "hello", "app_id": app["id"]})
        assert await ask("POST", f"/invoke/{fn['id']}", json={"name": "Ada"}) == (
            200,
            {"message": "Hello Ada"},
        )
        async with http.get(f"{url}/v1/runner/dequeue") as refused:
            assert refused.status == 404
            assert "runner token" not in await refused.text()
        served = Counter([(await ask("GET", "/v2/runners"))[0] for _ in range(10)])
        assert served == {200: 10}
        # It still takes connections and answers nothing: only its health check can tell.
        nodes.apis[0].pause()
        try:
            in_a_row = 0
            async with asyncio.timeout(90):
                while in_a_row < 20:
                    try:
                        async with asyncio.timeout(3):
                            in_a_row = in_a_row + 1 if (await ask("GET", "/v2/apps"))[0] == 200 else 0
                    except TimeoutError:
                        in_a_row = 0
        finally:
            nodes.apis[0].resume()
