"""The Dockerfile of the example makes an image that a runner node can run as any function."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import BuildError

from tests.engine.images import PYTHON, Images, cache_folder
from tests.images.building import ROOT
from tests.integration.test_agent_docker import docker_rig

pytestmark = pytest.mark.engine

HELLO = ROOT / "examples" / "hello"
BASE, IMAGE = "fnhybrid/example-base:1", "fnhybrid/example-hello:1"
OFFLINE = f"FROM {PYTHON}\nCOPY wheels /wheels\nENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels\n"


def wheels() -> Path:
    """A folder with the wheels that the function needs, fetched once for each list of them."""
    wanted = HELLO / "requirements.txt"
    folder = cache_folder() / f"wheels-hello-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:16]}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(unfinished)]
        subprocess.run([*command, "-r", str(wanted)], check=True, capture_output=True)
        unfinished.rename(folder)
    return folder


def made(client: docker.DockerClient, folder: Path, tag: str, **more: Any) -> None:
    try:
        client.images.build(path=str(folder), tag=tag, network_mode="none", **more)
    except BuildError as exc:
        said = "".join(str(line.get("stream", "")) for line in exc.build_log)
        raise AssertionError(f"{exc}\n{said[-3000:]}") from None


@pytest.fixture
def hello(engine: str, engine_images: Images, tmp_path: Path) -> Iterator[str]:
    """The image, built without a network."""
    engine_images.need(PYTHON)
    client = docker.from_env(environment={"DOCKER_HOST": engine}, timeout=300)
    try:
        shutil.copytree(wheels(), tmp_path / "wheels")
        (tmp_path / "Dockerfile").write_text(OFFLINE)
        made(client, tmp_path, BASE)
        made(client, HELLO, IMAGE, buildargs={"BASE_IMAGE": BASE})
        yield IMAGE
    finally:
        client.close()


async def test_the_example_is_an_image_that_answers(hello: str, engine: str) -> None:
    async with docker_rig(engine) as r:
        answer = await r.call(r.deploy(hello, timeout=60), b'{"name": "Ada"}')
        assert (answer.status, answer.body) == (200, b'{"message": "Hello Ada"}')


def test_it_is_started_as_its_func_yaml_says() -> None:
    said = (HELLO / "func.yaml").read_text().split("entrypoint: ")[1].splitlines()[0].split()
    assert f"ENTRYPOINT {json.dumps(said)}" in (HELLO / "Dockerfile").read_text()
