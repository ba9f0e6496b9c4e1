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
from runner_node.drivers.fake import open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour, Request
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
    "cats": "echo up >&2; exec cat",
    "logs": "while read line; do echo $line; echo log-$line >&2; done",
    "answers once": "read line; echo $line; exit 3",
    "hears nothing": "exec <&-; echo up; exec sleep 600",
    "floods": "cat /dev/zero",
}
"""What the containers of the tests do, for drivers whose image is a shell."""

SAMPLED = {"net_rx", "net_tx", "mem_limit", "mem_usage", "disk_read", "disk_write"} | {
    "cpu_user", "cpu_total", "cpu_kernel",
}  # fmt: skip


class Output:
    """A sink whose content can be waited for."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ends = 0
        """How often it was told that there is no more."""
        self._more = asyncio.Event()

    def __call__(self, piece: bytes) -> None:
        self.data += piece
        self.ends += not piece
        self._more.set()

    async def has(self, wanted: bytes) -> None:
        """Returns when *wanted* has been written."""
        await self._until(lambda: wanted in self.data)

    async def is_long(self, size: int) -> None:
        """Returns when *size* bytes have been written."""
        await self._until(lambda: len(self.data) >= size)

    async def has_ended(self) -> None:
        """Returns when it was told that there is no more."""
        await self._until(lambda: self.ends > 0)

    async def _until(self, so: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not so():
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
    def spec(script: str, env: dict[str, str] | None = None, *, stdio: bool = False) -> ContainerSpec:
        return _spec(image, env={"RUN": SCRIPTS[script], **(env or {})}, stdio=stdio)

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
        "cats": Behaviour(output=b"up\n", sample=dict.fromkeys(SAMPLED, 7)),
        "answers once": Behaviour(exits_after=1, exit=Exit(3)),
    }
    async with open_fake(behaviours) as driver:
        yield Rig(
            driver,
            lambda script, env=None, stdio=False: _spec(script, env=env or {}, stdio=stdio),
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


@asynccontextmanager
async def talking(rig: Rig, script: str) -> AsyncIterator[tuple[Container, Output, Output]]:
    """A container of *script* with stdin and stdout: itself, what it logs, and what it says."""
    spec, logged, said = rig.spec(script, stdio=True), Output(), Output()
    await rig.driver.ensure_image(spec.image)
    container = await rig.driver.start(spec, logged, said)
    try:
        yield container, logged, said
    finally:
        await container.remove()
        assert said.ends == 1


async def test_an_engine_that_is_there_answers_a_ping(rig: Rig) -> None:
    await rig.driver.ping()


async def test_a_missing_image_names_itself_and_the_cause(rig: Rig) -> None:
    async with asyncio.timeout(LIMIT):
        with pytest.raises(errors.ImagePullFailed, match=f"Failed to pull image '{rig.missing}': .+"):
            await rig.driver.ensure_image(rig.missing)


async def test_concurrent_requests_for_a_missing_image_all_get_the_answer(rig: Rig) -> None:
    asked = [rig.driver.ensure_image(rig.missing) for _ in range(5)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, errors.ImagePullFailed) for answer in answers] == [True] * 5


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


async def test_what_is_written_to_stdin_is_heard_and_answered_on_stdout_alone(rig: Rig) -> None:
    async with talking(rig, "cats") as (container, logged, said):
        for call in (b"first\n", b"second\n"):
            await container.write(call)
            await said.has(call)
        await logged.has(b"up\n")
        assert (logged.data, said.data) == (b"up\n", b"first\nsecond\n")
        assert container.io_dir == ""


async def test_bytes_go_through_as_they_are(rig: Rig) -> None:
    every = bytes(range(256)) * 5
    async with talking(rig, "cats") as (container, _, said):
        await container.write(every)
        await said.is_long(len(every))
        assert said.data == every


async def test_ten_megabytes_go_both_ways_at_once(rig: Rig) -> None:
    async with talking(rig, "cats") as (container, _, said):
        piece = os.urandom(10 << 20)
        await asyncio.wait_for(container.write(piece), LIMIT)
        await said.is_long(len(piece))
        assert said.data == piece


async def test_stdin_ends_behind_what_was_written(rig: Rig) -> None:
    async with talking(rig, "cats") as (container, _, said):
        piece = os.urandom(1 << 20)
        writing = asyncio.create_task(container.write(piece))
        await asyncio.sleep(0)
        await container.close_stdin()
        await container.close_stdin()
        await writing
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(0)
        await said.has_ended()
        assert (said.data, said.ends) == (piece, 1)
        with pytest.raises(errors.FunctionResponseError):
            await container.write(b"more")


async def test_an_answer_that_was_given_before_the_end_is_heard(rig: Rig) -> None:
    async with talking(rig, "answers once") as (container, _, said):
        await container.write(b"one\n")
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(3)
        await said.has_ended()
        assert said.data == b"one\n"
        with pytest.raises(errors.FunctionResponseError):
            await container.write(b"two\n")
        await container.close_stdin()


async def test_a_function_that_ends_while_it_is_written_to_is_told(rig: Rig) -> None:
    """And what it said is heard, although it read a part only."""
    async with talking(rig, "answers once") as (container, _, said):
        with pytest.raises(errors.FunctionResponseError):
            await asyncio.wait_for(_write_on(container, b"one\n"), LIMIT)
        await said.has_ended()
        assert said.data.startswith(b"one\n")
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(3)


async def test_a_removal_ends_a_write_that_waits(rig: Rig) -> None:
    async with talking(rig, "cats") as (container, _, _):
        await container.freeze()
        writing = asyncio.create_task(_write_on(container))
        done, _ = await asyncio.wait({writing}, timeout=0.1)
        assert not done
        await container.remove()
        with pytest.raises(errors.FunctionResponseError):
            await asyncio.wait_for(writing, LIMIT)


async def _write_on(container: Container, first: bytes = b"") -> None:
    await container.write(first)
    while True:
        await container.write(bytes(1 << 20))


async def test_a_pause_holds_back_what_is_said_and_nothing_is_lost(rig: Rig) -> None:
    async with talking(rig, "cats") as (container, logged, said):
        await logged.has(b"up\n")
        container.pause_talk()
        piece = os.urandom(10 << 20)
        writing = asyncio.create_task(container.write(piece))
        await asyncio.wait({writing}, timeout=0.2)
        assert (said.data, logged.data) == (b"", b"up\n")
        await container.drain_output()
        container.resume_talk()
        await asyncio.wait_for(writing, LIMIT)
        await said.is_long(len(piece))
        assert said.data == piece


async def test_an_end_is_told_while_what_was_said_is_held_back(rig: Rig) -> None:
    async with talking(rig, "cats") as (container, _, said):
        container.pause_talk()
        await container.write(b"last words")
        await container.close_stdin()
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(0)
        assert (said.data, said.ends) == (b"", 0)
        container.resume_talk()
        await said.has_ended()
        assert said.data == b"last words"


async def test_the_verbs_of_stdin_may_be_called_without_one(rig: Rig) -> None:
    async with started(rig, "sleeps") as (container, _):
        with pytest.raises(errors.FunctionResponseError):
            await container.write(b"x")
        await container.close_stdin()
        container.pause_talk()
        container.resume_talk()


async def test_a_container_says_what_it_has_used(rig: Rig) -> None:
    async with talking(rig, "cats") as (container, logged, _):
        await logged.has(b"up\n")
        used = await asyncio.wait_for(container.sample(), LIMIT)
        assert used.keys() == SAMPLED
        assert 0 < used["mem_usage"] <= used["mem_limit"] or used["mem_limit"] == 7
        await container.remove()
        assert await container.sample() == {}


async def test_a_flood_is_not_read_while_nobody_listens(real_rig: Rig) -> None:
    async with talking(real_rig, "floods") as (container, _, said):
        await said.is_long(1 << 20)
        container.pause_talk()
        before = len(said.data)
        for _ in range(3):
            await container.drain_output()
        await asyncio.sleep(0.2)  # nothing can tell that nothing happens
        assert len(said.data) == before
        container.resume_talk()
        held = len(said.data) - before
        assert held <= 2 << 20
        await said.is_long(before + held + (1 << 20))


async def test_each_call_has_its_log_when_output_is_drained(real_rig: Rig) -> None:
    async with talking(real_rig, "logs") as (container, logged, said):
        for number in range(20):
            await container.write(b"%d\n" % number)
            await said.has(b"%d\n" % number)
            del said.data[:]
        await container.write(b"last\n")
        await logged.has(b"log-last\n")
        assert logged.data == b"".join(b"log-%d\n" % number for number in range(20)) + b"log-last\n"


async def test_a_function_with_stdio_has_no_listener(real_rig: Rig) -> None:
    async with talking(real_rig, "echoes") as (_, _, said):
        await said.has(b"\n")
        assert said.data.strip() == b""
