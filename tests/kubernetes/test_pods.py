"""Nodes started, probed, asked and stopped as the pods of the manifests are."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import aiohttp
import pytest
import trustme

from deploy.__main__ import main
from tests.kubernetes.pods import LocalPod, LocalService, serving
from tests.kubernetes.rendered import ROOT, Manifests, composed, overlay
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.servers.server import Server
from tests.system.faults import ledger
from tests.system.faults.world import FUNCTIONS
from tests.system.nodes import ask
from tests.system.test_rolling_restart import DETACHED, SYNC, Clients
from tests.system.test_two_runners import deploy, until_final

pytestmark = pytest.mark.system

AS_PROCESSES = {
    "FN_DRIVER": "process",
    "FN_PROCESS_IMAGES": str(FUNCTIONS),
    "FN_IOFS_PATH": "",
    "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30),
}
"""What stands for the engine."""


@dataclass
class Installation:
    """The pods of one rendering, behind its Services. *api* is that of clients, as tests of nodes see one."""

    found: Manifests
    folder: Path
    stores: Mapping[str, str]
    apis: list[LocalPod]
    runners: list[LocalPod]
    services: dict[str, LocalService]
    secrets: Mapping[str, Path]

    @property
    def api(self) -> LocalService:
        return self.services["fn-hybrid-api"]

    def new_api(self, name: str) -> LocalPod:
        workload = self.found.workloads["fn-hybrid-api"]
        return LocalPod(self.found, workload, name, self.folder, self.stores, self.secrets)

    def new_runner(self, number: int) -> LocalPod:
        workload = self.found.workloads["fn-hybrid-runner"]
        address = self.services["fn-hybrid-api-runner"].url
        environ = {**AS_PROCESSES, **self.stores, "FN_RUNNER_API_URL": address}
        name = f"{workload.name}-{number}"
        return LocalPod(self.found, workload, name, self.folder, environ, self.secrets)

    def logs(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.stem}\n" + "\n".join(log.read_text().splitlines()[-30:]) for log in logs)


@asynccontextmanager
async def installed(
    found: Manifests,
    folder: Path,
    stores: Mapping[str, str],
    count: int,
    secrets: Mapping[str, Path] = MappingProxyType({}),
) -> AsyncIterator[Installation]:
    """*count* pods of each tier, all ready. *secrets*: folders by the names of Secrets."""
    here = Installation(found, folder, stores, [], [], {}, secrets)
    async with AsyncExitStack() as stack:
        for name, pods in (
            ("fn-hybrid-api", here.apis),
            ("fn-hybrid-api-runner", here.apis),
            ("fn-hybrid-runner", here.runners),
        ):
            here.services[name] = await stack.enter_async_context(
                serving(found, name, pods, secure=bool(secrets))
            )
        here.apis += [here.new_api(f"fn-hybrid-api-{number}") for number in range(count)]
        here.runners += [here.new_runner(number) for number in range(count)]
        stack.push_async_callback(_end, here)
        # All at once, as Kubernetes starts them: their init containers meet at an empty database.
        await asyncio.gather(*(pod.start() for pod in [*here.apis, *here.runners]))
        try:
            yield here
        except (AssertionError, aiohttp.ClientError, ExceptionGroup):
            print(here.logs())  # what pytest shows of a test that failed
            raise


async def _end(here: Installation) -> None:
    await asyncio.gather(*(pod.kill() for pod in [*here.apis, *here.runners]))


async def replace_all(here: Installation) -> None:
    """A rolling update by the strategies of the manifests."""
    strategy = here.found.workloads["fn-hybrid-api"].body["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxUnavailable": 0, "maxSurge": 1}
    for old in list(here.apis):
        new = here.new_api(f"{old.name}-new")
        here.apis.append(new)
        await new.start()
        await old.stop()
        here.apis.remove(old)
    # A StatefulSet has no pod above its number: one goes, its successor of that name comes, then the next.
    runner = here.found.workloads["fn-hybrid-runner"].body["spec"]
    assert runner["updateStrategy"]["type"] == "RollingUpdate"
    for number in reversed(range(len(here.runners))):
        await here.runners[number].stop()
        here.runners[number] = here.new_runner(number)
        await here.runners[number].start()
        await asyncio.sleep(runner["minReadySeconds"])


async def test_the_pods_for_development_start_serve_and_stop_in_time_and_fail_no_request(
    tmp_path: Path,
) -> None:
    async with (
        installed(overlay("dev"), tmp_path, {}, count=1) as here,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as http,
    ):
        (api,), (runner,) = here.apis, here.runners
        fn_id = await deploy(
            http, cast("Any", here.api), "work", memory=128, config={"LEDGER": str(tmp_path / "book")}
        )
        url = f"{here.services['fn-hybrid-runner'].url}/invoke/{fn_id}"
        await ask(http, "POST", url, json={"type": "sync", "do": "work"})
        clients = Clients(http, url)
        async with asyncio.TaskGroup() as group:
            for _ in range(SYNC):
                group.create_task(clients.sync())
            while clients.answers["sync: 200"] < 20:
                await asyncio.sleep(0.05)
            slow = asyncio.create_task(
                ask(http, "POST", url, json={"type": "sync", "do": "work", "seconds": 4})
            )
            await asyncio.sleep(0.5)
            clients.stop()
            took = await runner.stop()
        await slow
        assert clients.answers.keys() == {"sync: 200"}, here.logs()
        assert took < runner.workload.pod["terminationGracePeriodSeconds"]
        # What the runner handed in while it stopped is there.
        records = await until_final(http, cast("Any", here), fn_id, set(), limit=30)
        assert {record["status"] for record in records.values()} == {"success"}
        assert await api.stop() < api.workload.pod["terminationGracePeriodSeconds"]
        assert api.restarts == runner.restarts == []


async def test_a_rolling_update_by_the_pods_own_probes_fails_no_request_and_loses_no_call(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    postgres, redis = own_server(Postgres), own_server(Redis)
    stores = {
        "FN_DB_URL": postgres.url,
        "FN_MQ_URL": redis.url,
        "FN_RUNNER_TOKEN": "of-the-operator",
    }
    async with (
        installed(composed("engine-sidecar"), tmp_path, stores, count=2) as here,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as http,
    ):
        book = tmp_path / "ledger"
        fn_id = await deploy(http, cast("Any", here.api), "work", memory=128, config={"LEDGER": str(book)})
        for runner in here.runners:
            await ask(
                http,
                "POST",
                f"http://127.0.0.1:{runner.ports['http']}/invoke/{fn_id}",
                json={"type": "sync", "do": "work"},
            )
        clients = Clients(http, f"{here.services['fn-hybrid-runner'].url}/invoke/{fn_id}")
        kinds = itertools.chain([clients.sync] * SYNC, [clients.detached] * DETACHED)
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(kind())
            await replace_all(here)
            clients.stop()

        assert clients.answers.keys() == {"sync: 200", "detached: 202"}, f"{clients.answers}\n{here.logs()}"
        assert min(clients.answers.values()) > 50
        accepted = set(clients.accepted)
        records = await until_final(http, cast("Any", here), fn_id, accepted, limit=240)
        ends = Counter((records[call]["status"], records[call]["attempt"]) for call in accepted)
        assert ends.keys() == {("success", 1)}, f"{ends}\n{here.logs()}"
        runs = ledger.read(book)
        assert {len(runs[call]) for call in accepted} == {1}
        assert [why for pod in (*here.apis, *here.runners) for why in pod.restarts] == []


def secrets(folder: Path, authority: trustme.CA) -> dict[str, Path]:
    """What docs/kubernetes.md tells operators to put into the Secrets of files."""
    found = {
        name: folder / name for name in ("fn-hybrid-api-tls", "fn-hybrid-runner-tls", "fn-hybrid-api-tokens")
    }
    for name, place in found.items():
        place.mkdir(parents=True)
        if name.endswith("-tls"):
            own = authority.issue_cert("127.0.0.1", name.removesuffix("-tls"))
            own.cert_chain_pems[0].write_to_path(str(place / "tls.crt"))
            own.private_key_pem.write_to_path(str(place / "tls.key"))
            authority.cert_pem.write_to_path(str(place / "ca.crt"))
    return found


async def test_the_pods_for_production_come_together_over_tls_and_ask_clients_for_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    mounted = secrets(tmp_path / "secrets", authority)
    tokens = mounted["fn-hybrid-api-tokens"] / "tokens.yaml"
    assert main(["token", "--name", "ops", "--role", "admin", "--file", str(tokens)]) == 0
    token = capsys.readouterr().out.split()[0]
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    (tmp_path / "data").mkdir()
    stores = {
        "FN_DB_URL": f"sqlite:///{tmp_path}/data/fn.db",
        "FN_MQ_URL": f"sqlite:///{tmp_path}/data/queue.db",
        "FN_RUNNER_TOKEN": "of-the-operator",
    }
    async with (
        installed(overlay("production"), tmp_path, stores, count=1, secrets=mounted) as here,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as stranger,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust), headers={"Authorization": f"Bearer {token}"}
        ) as http,
    ):
        async with stranger.get(f"{here.api.url}/v2/apps") as answer:
            assert answer.status == 401
        with pytest.raises(aiohttp.ClientError):  # without a certificate nobody is a runner
            await stranger.get(f"{here.services['fn-hybrid-api-runner'].url}/v1/runner/wanted")
        config = {"LEDGER": str(tmp_path / "book")}
        fn_id = await deploy(http, cast("Any", here.api), "work", memory=128, config=config)
        url = f"{here.services['fn-hybrid-runner'].url}/invoke/{fn_id}"
        await ask(stranger, "POST", url, json={"type": "sync", "do": "work"})
        detached = {"Fn-Invoke-Type": "detached"}
        accepted = await ask(stranger, "POST", url, json={"type": "detached", "do": "work"}, headers=detached)
        records = await until_final(http, cast("Any", here), fn_id, {accepted["call_id"]}, limit=60)
        assert records[accepted["call_id"]]["status"] == "success", here.logs()


def test_the_program_that_pods_run_is_the_one_of_the_images() -> None:
    for name in ("fn-hybrid-api", "fn-hybrid-runner"):
        for container in overlay("dev").workloads[name].containers:
            if container.body["image"].startswith("fn-hybrid"):
                assert container.body["command"] == ["fn-node"]
    assert 'fn-node = "deploy.__main__:main"' in (ROOT / "pyproject.toml").read_text()
