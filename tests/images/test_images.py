"""The images of the nodes: built, looked at, and run as an operator would, with a real function."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.engine.images import FDK_HELLO, PYTHON, Images
from tests.images.building import SECRET, build

pytestmark = [pytest.mark.engine, pytest.mark.system]

LIMIT = 240.0
TOKEN = "image-test-token"
HARDENED: dict[str, Any] = {
    "read_only": True, "tmpfs": {"/tmp": "", "/var/lib/fn/data": "uid=65532,gid=65532"},
    "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "detach": True,
}  # fmt: skip
CALL = """
import json, sys, urllib.request
def ask(url, body=None):
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None)
    return json.load(urllib.request.urlopen(request, timeout=60))
api, runner, image = sys.argv[1:]
app = ask(api + "/v2/apps", {"name": "shop"})
fn = ask(api + "/v2/fns", {"name": "hello", "app_id": app["id"], "image": image})
print(json.dumps(ask(runner + "/invoke/" + fn["id"], {"name": "Ada"})))
"""


@pytest.fixture(scope="module")
def client(engine: str) -> Iterator[docker.DockerClient]:
    found = docker.from_env(environment={"DOCKER_HOST": engine}, timeout=120)
    yield found
    found.close()


@pytest.fixture(scope="module")
def built(engine: str, engine_images: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    base, folder = engine_images.need(PYTHON), tmp_path_factory.mktemp("build")
    return {target: build(engine, target, base, folder) for target in ("api", "runner")}


@contextmanager
def container(client: docker.DockerClient, image: str, **more: Any) -> Iterator[Any]:
    found = client.containers.run(image, **{**HARDENED, **more})
    try:
        yield found
    finally:
        found.remove(force=True, v=True)


def until_healthy(found: Any) -> None:
    deadline = time.monotonic() + LIMIT
    while (state := client_state(found)) != "healthy":
        assert time.monotonic() < deadline, f"{state}\n{found.logs().decode()}"
        time.sleep(0.2)


def client_state(found: Any) -> str:
    found.reload()
    assert found.status == "running", found.logs().decode()
    return str(found.attrs["State"]["Health"]["Status"])


def run_in(found: Any, *command: str) -> tuple[int, str]:
    done = found.exec_run(list(command))
    return done.exit_code, done.output.decode()


def test_images_say_what_they_are_and_are_nobodys(client: docker.DockerClient, built: dict[str, str]) -> None:
    for kind, image_id in built.items():
        config = client.images.get(image_id).attrs["Config"]
        assert config["User"] == "65532:65532"
        assert config["Labels"]["org.opencontainers.image.version"] == "1.2.3"
        assert config["Labels"]["org.opencontainers.image.revision"] == "abc"
        assert config["Entrypoint"] == ["fn-node"]
        assert config["Cmd"] == [kind]
        assert config["Healthcheck"]["Test"] == ["CMD", "fn-node", "probe"]


def test_no_layer_has_what_lay_about_or_what_a_node_does_not_run(
    client: docker.DockerClient, built: dict[str, str]
) -> None:
    script = (
        f"! grep -rqsF {SECRET} / --exclude-dir=proc --exclude-dir=sys && ! test -e /src && ! test -e /wheels"
    )
    for image_id in built.values():
        client.containers.run(image_id, entrypoint=["sh", "-c", script], network_mode="none", remove=True)
        assert SECRET not in json.dumps(client.images.get(image_id).history())


@pytest.mark.parametrize(
    ("kind", "missing"), [("api", "docker"), ("runner", "sqlalchemy"), ("runner", "botocore")]
)
def test_an_image_has_no_libraries_of_the_other_tier(
    client: docker.DockerClient, built: dict[str, str], kind: str, missing: str
) -> None:
    names = [missing, "pip", "aiohttp"]
    look = f"from importlib.util import find_spec; print(*[bool(find_spec(name)) for name in {names}])"
    said = client.containers.run(
        built[kind], entrypoint=["python", "-c", look], network_mode="none", remove=True
    )
    assert said.decode().split() == ["False", "False", "True"]


def test_both_tiers_run_read_only_and_without_rights_and_stop_when_asked(
    client: docker.DockerClient, built: dict[str, str], engine: str, engine_images: Images
) -> None:
    image, socket = engine_images.need(FDK_HELLO), engine.removeprefix("unix://")
    sockets = Path(os.path.dirname(socket)) / "iofs"
    sockets.mkdir(exist_ok=True)
    os.chown(sockets, 65532, 65532)
    both = {"FN_RUNNER_TOKEN": TOKEN, "FN_LOG_LEVEL": "debug"}
    api_environ = {**both, "FN_ADMIN_PORT": "8081"}
    runner_environ = {
        **both, "FN_PORT": "8090", "FN_RUNNER_API_URL": "http://127.0.0.1:8080", "DOCKER_HOST": engine,
        "FN_IOFS_PATH": str(sockets), "FN_NODE_ID": "image-runner", "FN_NOT_KNOWN": "x",
    }  # fmt: skip
    binds = [f"{socket}:{socket}", f"{sockets}:{sockets}"]
    with (
        container(client, built["api"], environment=api_environ, network_mode="none") as api,
        container(
            client, built["runner"], environment=runner_environ, network_mode=f"container:{api.id}",
            volumes=binds, group_add=[str(os.stat(socket).st_gid)],
        ) as runner,
    ):  # fmt: skip
        until_healthy(api)
        until_healthy(runner)
        assert run_in(runner, "fn-node", "probe", "--ready") == (0, "")
        code, said = run_in(
            api, "python", "-c", CALL, "http://127.0.0.1:8080", "http://127.0.0.1:8090", image
        )
        assert (code, said) == (0, '{"message": "Hello Ada"}\n'), said + runner.logs().decode()
        for found in (runner, api):
            found.stop(timeout=60)
            assert found.wait()["StatusCode"] == 0, found.logs().decode()
            assert "Traceback" not in found.logs().decode()
