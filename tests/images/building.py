"""Images of the nodes, built by a private engine that reaches no registry and no package index."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import docker
from docker.errors import BuildError

from tests.engine.images import cache_folder

ROOT = Path(__file__).parents[2]
CODE = ("api_node", "deploy", "hybrid_client", "runner_node", "services", "shared_models")
FILES = ("LICENSE", "README.md", "constraints.txt", "pyproject.toml", ".dockerignore")
SECRET = "token-that-no-layer-may-have"
_NOT_CODE = shutil.ignore_patterns("__pycache__", "kubernetes", "grafana", "compose")


def build(host: str, target: str, base: str, folder: Path) -> str:
    """The id of the image *target*, made from the image *base*; *folder* is empty, or another target's."""
    context = folder / "context"
    if not context.exists():
        context.mkdir()
        for name in FILES:
            shutil.copy2(ROOT / name, context)
        for name in CODE:
            shutil.copytree(ROOT / name, context / name, ignore=_NOT_CODE)
        shutil.copytree(_wheels(), context / "wheels")
        # What lies about in a folder must not get in.
        (context / ".env").write_text(SECRET)
    client = docker.from_env(environment={"DOCKER_HOST": host}, timeout=300)
    try:
        image, _ = client.images.build(
            path=str(context), dockerfile="deploy/images/Dockerfile", target=target, network_mode="none",
            buildargs={
                "BASE_IMAGE": base, "PIP_ARGS": "--no-index --find-links=/wheels",
                "VERSION": "1.2.3", "REVISION": "abc",
            },
        )  # fmt: skip
        return str(image.id)
    except BuildError as exc:
        said = "".join(str(line.get("stream", "")) for line in exc.build_log)
        raise AssertionError(f"{exc}\n{said[-3000:]}") from None
    finally:
        client.close()


def _wheels() -> Path:
    """A folder with the wheels of all that a node needs, fetched once for each list of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # Debian's Python 3.11.2 is older than those for which redis needs no async-timeout.
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], "async-timeout"]
    constraints = ROOT / "constraints.txt"
    state = hashlib.sha256(constraints.read_bytes() + repr((wanted, sys.version_info[:2])).encode())
    folder = cache_folder() / f"wheels-{state.hexdigest()[:16]}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
        # Debian's Python, which the base image has.
        command += ["--python-version=3.11", "--dest", str(unfinished), "-c", str(constraints), *wanted]
        subprocess.run(command, check=True, capture_output=True)
        unfinished.rename(folder)
    return folder
