"""The contract of ``ContainerDriver``, sentence by sentence, on every driver."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from runner_node.drivers.contract import SOCKET, Container, ContainerDriver, ContainerSpec, Exit
from runner_node.drivers.fake import Answer, Behaviour, Request, open_fake
from runner_node.drivers.opener import open_driver
from runner_node.drivers.settings import DriverSettings
from shared_models import errors
from shared_models.ids import new_id

LIMIT = 30.0
ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "sleeps": "sleep 600",
    "exits": "echo to-stdout; echo to-stderr >&2; exit 3",
    "echoes": 'echo "$GREETING $FN_LISTENER"; sleep 600',
    "counts": "while :; do echo tick; sleep 0.02; done",
    "obeys": """
        cd "$(dirname "${FN_LISTENER#unix:}")"; echo up
        while [ ! -e say ]; do sleep 0.01; done
        echo said; touch done; sleep 600""",
}
"""What the containers of the tests do, for drivers whose image is a shell."""


class Output:
    """A sink whose content can be waited for."""

    def __init__(self) -> None:
        self.data = b""
        self._more = asyncio.Event()

    def __call__(self, piece: bytes) -> None:
        self.data += piece
        self._more.set()

    async def has(self, wanted: bytes) -> None:
        """Returns when *wanted* has been written."""
        async with asyncio.timeout(LIMIT):
            while wanted not in self.data:
                self._more.clear()
                await self._more.wait()


@dataclasses.dataclass
class Rig:
    """A driver under test: *spec* makes a container of a script, *open* opens another like it."""

    driver: ContainerDriver
    spec: Callable[..., ContainerSpec]
    hello: str
    """An image whose function answers with JSON."""
    missing: str
    open: Callable[[], AbstractAsyncContextManager[ContainerDriver]]


def _spec(image: str, **changes: object) -> ContainerSpec:
    spec = ContainerSpec(id=new_id(), image=image, env={}, memory=128 << 20)
    return dataclasses.replace(spec, **changes)


def _shell_spec(image: str) -> Callable[..., ContainerSpec]:
    def spec(script: str, env: dict[str, str] | None = None) -> ContainerSpec:
        return _spec(image, env={"RUN": SCRIPTS[script], **(env or {})})

    return spec


def _open(settings: DriverSettings) -> AbstractAsyncContextManager[ContainerDriver]:
    return open_driver(settings, f"test-{new_id()}")


@asynccontextmanager
async def _fake(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    def greet(call: Request) -> Answer:
        return Answer(body=json.dumps({"message": "Hello World"}).encode())

    behaviours = {
        "sleeps": Behaviour(socket="never"),
        "exits": Behaviour(output=b"to-stdout\nto-stderr\n", exits_at_start=Exit(3)),
        "hello": Behaviour(function=greet, socket="links"),
    }
    async with open_fake(behaviours) as driver:
        yield Rig(
            driver,
            lambda script, env=None: _spec(script, env=env or {}),
            "hello",
            "missing",
            lambda: open_fake(behaviours),
        )


@asynccontextmanager
async def _process(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    images = tmp_path / "images"
    (images / "shell").mkdir(parents=True)
    (images / "shell" / "func.yaml").write_text(
        "runtime: python\nentrypoint: [/bin/sh, -c, 'eval \"$RUN\"']\n"
    )
    (images / "hello").symlink_to(ROOT / "examples" / "hello")
    venvs = request.getfixturevalue("process_venvs")
    settings = DriverSettings(driver="process", process_images=str(images), process_venvs=str(venvs))
    async with _open(settings) as driver:
        yield Rig(driver, _shell_spec("me/shell:1"), "hello:0.0.1", "missing", lambda: _open(settings))


@asynccontextmanager
async def _docker(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    from tests.engine.images import BUSYBOX, FDK_HELLO

    images = request.getfixturevalue("engine_images")
    settings = DriverSettings(docker_host=request.getfixturevalue("engine"))
    shell, hello = images.need(BUSYBOX), images.need(FDK_HELLO)
    async with _open(settings) as driver:
        # Port 1 of this machine refuses at once.
        missing = "localhost:1/nobody/nothing:1"
        yield Rig(driver, _shell_spec(shell), hello, missing, lambda: _open(settings))


@pytest.fixture(scope="session")
def process_venvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of virtual environments for the whole session."""
    return tmp_path_factory.mktemp("venvs")


RIGS = {"fake": _fake, "process": _process, "docker": _docker}
ENGINE = pytest.param("docker", marks=pytest.mark.engine)


@pytest.fixture(params=["fake", "process", ENGINE])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with RIGS[request.param](tmp_path, request) as opened:
        yield opened


@pytest.fixture(params=["process", ENGINE])
async def real_rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """Drivers that run real programs."""
    async with RIGS[request.param](tmp_path, request) as opened:
        yield opened


@asynccontextmanager
async def started(
    rig: Rig, script: str, env: dict[str, str] | None = None
) -> AsyncIterator[tuple[Container, Output]]:
    spec, output = rig.spec(script, env), Output()
    await rig.driver.ensure_image(spec.image)
    container = await rig.driver.start(spec, output)
    assert container.id == spec.id
    try:
        yield container, output
    finally:
        await container.remove()


async def test_an_engine_that_is_there_answers_a_ping(rig: Rig) -> None:
    await rig.driver.ping()


async def test_a_missing_image_names_itself_and_the_cause(rig: Rig) -> None:
    async with asyncio.timeout(LIMIT):
        with pytest.raises(errors.ImagePullFailed, match=f"Failed to pull image '{rig.missing}': .+"):
            await rig.driver.ensure_image(rig.missing)


async def test_concurrent_requests_for_a_missing_image_all_get_the_answer(rig: Rig) -> None:
    asked = [rig.driver.ensure_image(rig.missing) for _ in range(5)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [errors.ImagePullFailed] * 5


async def test_output_and_exit_code_arrive(rig: Rig) -> None:
    async with started(rig, "exits") as (container, output):
        ended = await asyncio.wait_for(container.wait(), LIMIT)
        assert ended == Exit(3)
        await output.has(b"to-stdout\n")
        await output.has(b"to-stderr\n")


async def test_any_number_of_tasks_may_wait_and_one_that_gives_up_harms_none(rig: Rig) -> None:
    async with started(rig, "sleeps") as (container, _):
        waiting = [asyncio.create_task(container.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await container.remove()
        ends = await asyncio.wait_for(asyncio.gather(*waiting[1:]), LIMIT)
        assert [end.code for end in ends] == [137, 137]
        assert waiting[0].cancelled()


async def test_a_frozen_container_can_be_removed(rig: Rig) -> None:
    async with started(rig, "sleeps") as (container, _):
        await container.freeze()
        await asyncio.wait_for(container.remove(), LIMIT)
        assert (await container.wait()).code == 137


async def test_every_verb_may_be_called_twice_and_in_any_state(rig: Rig) -> None:
    async with started(rig, "sleeps") as (container, _):
        for verb in (container.unfreeze, container.freeze, container.unfreeze, container.remove):
            await verb()
            await verb()
        for verb in (container.freeze, container.unfreeze, container.drain_output, container.remove):
            await verb()


async def test_freezing_what_has_ended_is_no_error(rig: Rig) -> None:
    async with started(rig, "exits") as (container, _):
        await asyncio.wait_for(container.wait(), LIMIT)
        await container.freeze()
        await container.unfreeze()


async def test_remove_leaves_no_folder(rig: Rig) -> None:
    async with started(rig, "sleeps") as (container, _):
        assert _mode(container.io_dir) == 0o777
        await container.remove()
        assert _mode(container.io_dir) == 0


def _mode(path: str) -> int:
    """The permissions of *path*; 0 when it is not there."""
    return os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0


async def test_closing_the_driver_removes_what_is_left(rig: Rig) -> None:
    spec, output = rig.spec("sleeps"), Output()
    async with rig.open() as driver:
        await driver.ensure_image(spec.image)
        container = await driver.start(spec, output)
    assert (await asyncio.wait_for(container.wait(), LIMIT)).code == 137
    assert _mode(container.io_dir) == 0


async def test_an_unknown_image_cannot_be_started_and_leaves_nothing(rig: Rig) -> None:
    spec = _spec("nobody/nothing:1")
    with pytest.raises(errors.ContainerInitFailed) as caught:
        await rig.driver.start(spec, Output())
    assert "nothing" in caught.value.detail


async def test_a_function_answers_a_call_over_its_socket(rig: Rig) -> None:
    """On real drivers this is examples/hello with the public FDK."""
    output = Output()
    env = {
        "FN_FORMAT": "http-stream",
        "FN_MEMORY": "256",
        "FN_TYPE": "sync",
        "FN_FN_ID": "f",
        "FN_APP_ID": "a",
    }
    await rig.driver.ensure_image(rig.hello)
    container = await rig.driver.start(_spec(rig.hello, env=env), output)
    try:
        answer = await asyncio.wait_for(_call(container), LIMIT)
    finally:
        await container.remove()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'{"message": "Hello World"}' in answer


async def _call(container: Container) -> bytes:
    path = os.path.join(container.io_dir, SOCKET)
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(path)
            break
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(0.01)
    head = "POST /call HTTP/1.1", "Host: localhost", "Fn-Call-Id: c1", "Fn-Deadline: 2100-01-01T00:00:00Z"
    rest = "Content-Type: application/json", "Connection: close", "Content-Length: 2", "", "{}"
    writer.write("\r\n".join([*head, *rest]).encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    answer += await reader.readuntil(b"}")
    writer.close()
    return answer


async def test_a_freeze_stops_the_processes_and_an_unfreeze_resumes_them(real_rig: Rig) -> None:
    async with started(real_rig, "counts") as (container, output):
        await output.has(b"tick\ntick\n")
        await container.freeze()
        await container.drain_output()
        before = len(output.data)
        await asyncio.sleep(0.2)  # nothing can tell that nothing happens
        assert len(output.data) == before
        await container.unfreeze()
        await output.has(output.data + b"tick\n")


async def test_env_wins_and_the_listener_is_told(real_rig: Rig) -> None:
    async with started(real_rig, "echoes", {"GREETING": "hi", "FN_LISTENER": "nonsense"}) as (_, output):
        await output.has(f"/{SOCKET}\n".encode())
        assert output.data.startswith(b"hi unix:/")


async def test_drained_output_is_in_the_sink(real_rig: Rig) -> None:
    async with started(real_rig, "obeys") as (container, output):
        await output.has(b"up\n")
        say, done = Path(container.io_dir, "say"), Path(container.io_dir, "done")
        say.touch()  # noqa: ASYNC240
        async with asyncio.timeout(LIMIT):
            while not done.exists():  # noqa: ASYNC240
                await asyncio.sleep(0.005)
        await container.drain_output()
        assert output.data == b"up\nsaid\n"
