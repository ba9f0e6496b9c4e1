"""The process driver: images as folders, and processes that do not outlive their node."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from runner_node.drivers.contract import ContainerSpec
from runner_node.drivers.opener import open_driver
from runner_node.drivers.process_images import ProcessImages
from runner_node.drivers.settings import DriverSettings
from shared_models import errors
from shared_models.ids import new_id

LIMIT = 60.0
ROOT = Path(__file__).parents[4]
SHELL = "runtime: python\nentrypoint: [/bin/sh, -c, 'eval \"$RUN\"']\n"

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def image(root: Path, name: str, described: str, requirements: str = "") -> ProcessImages:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "func.yaml").write_text(described)
    if requirements:
        (folder / "requirements.txt").write_text(requirements)
    return ProcessImages(str(root), "", limit=60.0)


def test_an_entrypoint_is_translated_from_the_container(tmp_path: Path) -> None:
    line = "/python/bin/fdk /function/func.py handler"
    found = image(tmp_path, "hello", f"runtime: python3.11\nentrypoint: {line}\n").find("hello")
    assert found.argv == (f"{found.venv}/bin/fdk", f"{tmp_path}/hello/func.py", "handler")


@pytest.mark.parametrize(
    "name", ["hello", "hello:0.0.1", "me/hello:1", "reg:5000/me/hello", "me/hello@sha256:ab"]
)
def test_registry_user_and_tag_do_not_count(tmp_path: Path, name: str) -> None:
    assert image(tmp_path, "hello", "runtime: python\n").find(name).folder == tmp_path / "hello"


def test_the_same_requirements_share_an_environment(tmp_path: Path) -> None:
    image(tmp_path, "one", "{}", "a==1\n")
    image(tmp_path, "two", "{}", "a==1\n")
    images = image(tmp_path, "three", "{}", "a==2\n")
    one, two, three = (images.find(name).venv for name in ("one", "two", "three"))
    assert one == two != three


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ("runtime: go\n", "runs runtime python only, not go"),
        ("- a list\n", "must be a mapping"),
        ("entrypoint: '\"open'\n", "No closing quotation"),
        ("a: [\n", "func.yaml cannot be read"),
    ],
)
def test_a_bad_func_yaml_is_said(tmp_path: Path, described: str, reason: str) -> None:
    with pytest.raises(errors.ImagePullFailed, match=reason):
        image(tmp_path, "bad", described).find("bad")


@pytest.mark.parametrize("name", ["nothing", "..", ".", ":1", "a/.."])
def test_an_image_without_a_folder_is_said(tmp_path: Path, name: str) -> None:
    images = image(tmp_path, "hello", "{}")
    with pytest.raises(errors.ImagePullFailed, match="no folder") as caught:
        images.find(name)
    assert caught.value.code == 404


def test_a_missing_setting_is_said() -> None:
    with pytest.raises(errors.ImagePullFailed, match="FN_PROCESS_IMAGES"):
        ProcessImages("", "", limit=1.0).find("hello")


async def test_a_failed_install_gives_pips_last_line_to_all_who_wait(tmp_path: Path) -> None:
    images = image(tmp_path, "bad", "{}", "/no/such/folder\n")
    asked = [images.ensure("bad"), images.ensure("bad:2")]
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(answer, errors.ImagePullFailed)
        assert "no/such/folder" in answer.message
    assert not images.find("bad").ready


async def test_nothing_of_the_nodes_environment_leaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FN_RUNNER_TOKEN", "secret")
    image(tmp_path, "shell", SHELL)
    output = bytearray()
    async with open_driver(
        DriverSettings(driver="process", process_images=str(tmp_path)), f"t-{new_id()}"
    ) as driver:
        await driver.ensure_image("shell")
        spec = ContainerSpec(id=new_id(), image="shell", env={"RUN": "env", "MINE": "1"}, memory=0)
        container = await driver.start(spec, output.extend)
        await asyncio.wait_for(container.wait(), LIMIT)
    names = {line.split("=")[0] for line in output.decode().splitlines()}
    expected = {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONUNBUFFERED", "FN_LISTENER", "FN_NODE", "RUN", "MINE"}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == expected


async def test_a_folder_for_sockets_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    settings = DriverSettings(driver="process", iofs_path=str(tmp_path / ("d" * 100)))
    with pytest.raises(ValueError, match="FN_IOFS_PATH is too long"):
        async with open_driver(settings, "n"):
            pass


NODE = """
import asyncio, sys
from runner_node.drivers.contract import ContainerSpec
from runner_node.drivers.opener import open_driver
from runner_node.drivers.settings import DriverSettings

async def main(images, node):
    async with open_driver(DriverSettings(driver="process", process_images=images), node) as driver:
        await driver.ensure_image("shell")
        run = "sleep 600 & echo $$ $! $HOME; wait"
        spec = ContainerSpec(id="C1", image="shell", env={"RUN": run}, memory=0)
        await driver.start(spec, lambda data: print(data.decode(), end="", flush=True))
        await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


@linux
async def test_a_function_dies_with_its_node_and_the_next_one_sweeps_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image(tmp_path, "shell", SHELL)
    node = f"t-{new_id()}"
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NODE, str(tmp_path), node, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert running.stdout
    leader, child, folder = (await asyncio.wait_for(running.stdout.readline(), LIMIT)).split()
    watched = os.pidfd_open(int(leader)), os.pidfd_open(int(child))
    running.kill()
    await running.wait()
    assert _ended(watched[0])
    assert not select.select([watched[1]], [], [], 0)[0]
    async with open_driver(DriverSettings(driver="process"), node):
        assert _ended(watched[1])
        assert not os.path.lexists(folder)  # noqa: ASYNC240
    assert "killed 1 processes that an earlier run of this node left" in caplog.text
    for descriptor in watched:
        os.close(descriptor)


def _ended(process: int) -> bool:
    """Whether the process has ended, which may take a moment."""
    return bool(select.select([process], [], [], LIMIT)[0])


@linux
@pytest.mark.parametrize("name", ["a=b", "a\0b"])
async def test_an_environment_that_no_program_can_have_is_told(tmp_path: Path, name: str) -> None:
    image(tmp_path / "images", "shell", SHELL)
    settings = DriverSettings(driver="process", process_images=str(tmp_path / "images"))
    async with open_driver(settings, "node") as driver:
        env = {name: "x", "RUN": "true"}
        spec = ContainerSpec(id=new_id(), image="shell", env=env, memory=64 << 20)
        with pytest.raises(errors.ContainerInitFailed) as raised:
            await driver.start(spec, lambda data: None)
    assert raised.value.detail.startswith("config: ")
