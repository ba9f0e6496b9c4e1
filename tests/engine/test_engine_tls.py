"""An engine that is asked over TCP with TLS, as docker's own clients ask it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
import trustme
import uvloop

from runner_node.drivers import engine_tls
from runner_node.drivers.contract import Exit
from runner_node.drivers.docker import open_docker
from runner_node.drivers.engine import Engine, open_engine
from runner_node.drivers.engine_tls import TROUBLE
from runner_node.drivers.settings import DriverSettings
from shared_models import errors
from shared_models.ids import new_id
from tests.engine.dockerd import engine_over_tls
from tests.engine.images import BUSYBOX, Images
from tests.engine.packages import Missing, missing
from tests.engine.test_docker_driver import LIMIT, ask, containers, spec
from tests.engine.test_docker_stdio import write_on
from tests.integration.test_doctor import doctor

pytestmark = pytest.mark.engine

GOLDEN = "golden/func:1"


def certificates(folder: Path, authority: trustme.CA, own: trustme.LeafCert) -> Path:
    folder.mkdir(parents=True)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    own.private_key_pem.write_to_path(folder / "key.pem")
    return folder


@dataclass
class Served:
    """An engine over TLS at *host*; *local* is the same without. *certs* are of a client that it trusts."""

    host: str
    local: str
    certs: Path
    authority: trustme.CA

    def settings(self, **changes: str) -> DriverSettings:
        given = {"docker_host": self.host, "docker_cert_path": str(self.certs), **changes}
        return DriverSettings(docker_tls_verify=True, prefork_pool_size=0, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def served(temporary_folder: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    own = certificates(folder / "server", authority, authority.issue_cert("127.0.0.1"))
    clients = certificates(folder / "client", authority, authority.issue_cert("runner"))
    options = [f"--tlscacert={own}/ca.pem", f"--tlscert={own}/cert.pem", f"--tlskey={own}/key.pem"]
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            engine_over_tls(listener, ["--tlsverify", *options]) as local,
        ):
            host = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
            yield Served(host, local, clients, authority)
    except Missing as exc:
        missing(f"NO CONTAINER ENGINE: {exc}")


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_functions_run_over_tls_with_stdin_sockets_and_logs(
    served: Served, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    images = Images(served.local)
    busybox, golden = images.need(BUSYBOX), images.need(GOLDEN)
    node, size = f"test-{new_id()}", 3_000_000

    async def scenario() -> None:
        said, logged = bytearray(), bytearray()
        async with asyncio.timeout(LIMIT), open_docker(served.settings(), node) as driver:
            await driver.ping()
            by_stdin = spec(busybox, "cat; echo end >&2; exit 4", stdio=True)
            container = await driver.start(by_stdin, logged.extend, said.extend)
            await container.write(bytes(size))
            await container.close_stdin()
            assert await container.wait() == Exit(4)
            assert (len(said), bytes(logged)) == (size, b"end\n")
            await container.remove()
            by_socket = await driver.start(spec(golden, env={"FN_FORMAT": "http-stream"}), logged.extend)
            assert await ask(by_socket, {"dump": True})
            await by_socket.freeze()
            await by_socket.unfreeze()
            assert containers(served.local, node) == [by_socket.id]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
    assert not containers(served.local, node)


async def test_a_function_that_does_not_read_ends_the_writing_over_tls(served: Served) -> None:
    image = Images(served.local).need(BUSYBOX)
    async with asyncio.timeout(LIMIT), open_docker(served.settings(), f"test-{new_id()}") as driver:
        made = spec(image, "head -c 1000000 /dev/zero", stdio=True)
        said = bytearray()
        container = await driver.start(made, bytearray().extend, said.extend)
        with pytest.raises(errors.FunctionResponseError):
            await write_on(container)
        assert await container.wait() == Exit(0)
        assert said == bytes(1_000_000)


async def test_what_a_killed_runner_left_is_removed_over_tls(served: Served) -> None:
    image, node = Images(served.local).need(BUSYBOX), f"test-{new_id()}"
    async with asyncio.timeout(LIMIT), open_docker(served.settings(), node) as before:
        left = await before.start(spec(image), bytearray().extend)
        async with open_docker(served.settings(), node):
            while containers(served.local, node):
                await asyncio.sleep(0.05)
        assert await left.wait() == Exit(137)


async def said_of(engine: Engine) -> set[str]:
    """What is told of a request by the SDK, and of one on the event loop."""
    found = set()
    for work in (engine.call(lambda client: client.ping()), engine.inspect("x")):
        with pytest.raises(errors.EngineUnavailable) as caught:
            await work
        found.add(caught.value.detail)
    return found


async def test_what_is_wrong_with_certificates_is_told_with_the_next_step(
    served: Served, tmp_path: Path
) -> None:
    theirs, name = trustme.CA(), served.host.replace("127.0.0.1", "localhost")
    unknown = certificates(tmp_path / "unknown", theirs, served.authority.issue_cert("runner"))
    foreign = certificates(tmp_path / "foreign", served.authority, theirs.issue_cert("runner"))
    for host, certs, told in (
        (served.host, unknown, "its certificate is from an authority that is not in ca.pem in DOCKER_CERT_"),
        (
            name,
            served.certs,
            "its certificate is not for localhost: use a name of the certificate in DOCKER_",
        ),
        (served.host, foreign, "it refuses cert.pem in DOCKER_CERT_PATH"),
    ):
        with open_engine(host, 10.0, str(certs)) as engine:
            [said] = await said_of(engine)
            assert said.startswith(TROUBLE + told)


async def test_a_node_without_tls_is_told_that_the_engine_wants_it(served: Served) -> None:
    with open_engine(served.host, 10.0) as engine, pytest.raises(errors.EngineUnavailable) as caught:
        await engine.call(lambda client: client.ping())
    assert "it wants TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH" in caught.value.detail


async def test_renewed_certificates_are_taken_by_a_node_that_runs(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_tls, "LOOK", 0.0)
    certs = certificates(tmp_path / "certs", served.authority, trustme.CA().issue_cert("runner"))
    with open_engine(served.host, 10.0, str(certs)) as engine:
        await said_of(engine)
        for file in served.certs.iterdir():
            shutil.copy(file, certs)
        assert await engine.call(lambda client: client.ping())
        await engine.create("renewed", {"Image": Images(served.local).need(BUSYBOX)})
        await engine.remove("renewed")


def test_the_doctor_finds_tls_that_works_and_tells_of_tls_that_does_not(
    served: Served, tmp_path: Path
) -> None:
    given = {"FN_RUNNER_API_URL": "http://127.0.0.1:1", "DOCKER_CERT_PATH": str(served.certs)}
    _, said = doctor(tmp_path, "runner", DOCKER_HOST=served.host, **given)
    assert "docker answers" in said
    client = docker.APIClient(base_url=served.local, version="auto")
    told = client.info()
    client.close()
    assert f"ok      container engine: version {told['ServerVersion']}, cgroup " in said
    lacks = not (told["MemoryLimit"] and told["SwapLimit"] and told["PidsLimit"] and told["CpuCfsQuota"])
    level = "warning" if lacks else "ok     "
    assert f"{level} limits of the container engine: " in said
    name = served.host.replace("127.0.0.1", "localhost")
    code, said = doctor(tmp_path, "runner", DOCKER_HOST=name, **given)
    assert code == 1
    assert "its certificate is not for localhost" in said
    assert "-> correct DOCKER_HOST, DOCKER_CERT_PATH or the engine's certificate" in said
    code, said = doctor(tmp_path, "runner", DOCKER_HOST=name, **{**given, "DOCKER_CERT_PATH": "/nowhere"})
    assert code == 1
    assert "DOCKER_CERT_PATH: /nowhere/ca.pem: No such file or directory" in said
