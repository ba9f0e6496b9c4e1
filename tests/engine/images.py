"""The function images of the tests, without a registry: made from Debian's packages and PyPI.

Root file systems are kept as archives between runs, under a name that changes with what is in them;
two runs that want the same one at once make it once. ``Images.need`` puts an image into the engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from tests.engine.packages import debian, need

ROOT = Path(__file__).parents[2]
GOLDENFN = ROOT / "tests" / "wire" / "functions" / "goldenfn"
HELLO = ROOT / "examples" / "hello"
BENCH = ROOT / "benchmarks" / "functions" / "quick"
LABEL = "fn.hybrid.test-image"
FDK_NEEDS = ("httptools", "iso8601==0.1.12", "pbr")
"""What of its requirements the FDK imports; the rest of them are for its own tests."""
FDK_SCRIPT = b"#!/usr/bin/python3\nimport sys\nfrom fdk.scripts.fdk import main\nsys.exit(main())\n"

FDK_HELLO = "fnhybrid/fdk-hello:1"
BUSYBOX = "fnhybrid/busybox:1"
"""A shell that does what the environment variable RUN says."""
QUICK = "fnhybrid/quick:1"
"""The function of the benchmarks."""

PYTHON = "fnhybrid/python:1"
"""What images of nodes are made from: Python with venv, and what a Dockerfile takes for granted."""
_TO_BUILD = ("python3-venv", "dash", "coreutils", "findutils", "grep", "libstdc++6", "sed")

_GOLDEN = ("ENV IMAGE_VAR=from-image FN_PATH=image-says", 'ENTRYPOINT ["/goldenfn"]')
_HEALTH = 'HEALTHCHECK --interval=1s --timeout=2s --retries=3 CMD ["/goldenfn","health"]'


def cache_folder() -> Path:
    """Where archives are kept between runs."""
    given = os.environ.get("XDG_CACHE_HOME")
    folder = Path(given) / "fn-hybrid-tests" if given else Path("/var/tmp/fn-hybrid-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Recipe:
    """A root file system made by *archive*, and the Dockerfile lines that go with it."""

    archive: Callable[[], Path]
    changes: tuple[str, ...]


class Images:
    """The images of the engine at *host*."""

    def __init__(self, host: str) -> None:
        self._host = host

    def need(self, name: str) -> str:
        """*name*, once the engine has that image as it is to be."""
        recipe = RECIPES[name]
        archive = recipe.archive()
        state = hashlib.sha256("\n".join([archive.name, *recipe.changes]).encode()).hexdigest()[:16]
        client = docker.APIClient(base_url=self._host, version="auto", timeout=120)
        try:
            found = client.inspect_image(name)
            current = (found["Config"].get("Labels") or {}).get(LABEL) == state
        except ImageNotFound:
            current = False
        if not current:
            repository, tag = name.split(":")
            changes = [*recipe.changes, f"LABEL {LABEL}={state}"]
            client.import_image(src=str(archive), repository=repository, tag=tag, changes=changes)
        client.close()
        return name


# -- root file systems -------------------------------------------------------------------------


def _kept(name: str, parts: Mapping[str, bytes], make: Callable[[Path], None]) -> Path:
    """The archive *name*, made by *make* unless there is one of the same *parts*."""
    state = hashlib.sha256(b"\0".join(key.encode() + b"=" + parts[key] for key in sorted(parts)))
    path = cache_folder() / f"{name}-{state.hexdigest()[:16]}.tar"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            unfinished.unlink(missing_ok=True)
            make(unfinished)
            unfinished.rename(path)
    return path


def _goldenfn() -> Path:
    sources = {source.name: source.read_bytes() for source in GOLDENFN.iterdir()}

    def make(path: Path) -> None:
        go = need("go", "golang-go")
        with tempfile.TemporaryDirectory() as folder:
            environ = {
                **os.environ, "CGO_ENABLED": "0", "GO111MODULE": "on", "GOFLAGS": "-mod=mod",
                "GOCACHE": f"{folder}/cache",
            }  # fmt: skip
            build = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", f"{folder}/goldenfn", "."]
            subprocess.run(build, cwd=GOLDENFN, env=environ, check=True)
            with tarfile.open(path, "w") as archive:
                archive.add(f"{folder}/goldenfn", "goldenfn")

    return _kept("goldenfn", sources, make)


def _busybox() -> Path:
    program = Path(need("busybox", "busybox-static"))

    def make(path: Path) -> None:
        with tarfile.open(path, "w") as archive:
            archive.add(program, "bin/busybox")

    return _kept("busybox", {"program": program.read_bytes()}, make)


def _python(*more: str) -> Path:
    """Debian's Python and nothing that it does not need, and its packages *more*."""
    release = debian()
    packages = ",".join(["python3", *more])

    def make(path: Path) -> None:
        options = [
            "--quiet",
            "--variant=extract",
            f"--include={packages}",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
        ]
        subprocess.run(
            [need("mmdebstrap", "mmdebstrap"), *options, "--format=tar", release, str(path)],
            check=True,
            capture_output=True,
        )

    parts = {"release": release.encode(), "recipe": b"1", **{name: b"" for name in more}}
    return _kept("-".join(["python", *more]), parts, make)


def _quick() -> Path:
    base, code = _python(), (BENCH / "func.py").read_bytes()

    def make(path: Path) -> None:
        path.write_bytes(base.read_bytes())
        with tarfile.open(path, "a") as archive:
            _add(archive, "function/func.py", code, 0o644)

    return _kept("quick", {"code": code, "base": base.name.encode()}, make)


def _fdk_hello() -> Path:
    base = _python()
    files = {name: (HELLO / name).read_bytes() for name in ("func.py", "func.yaml", "requirements.txt")}

    def make(path: Path) -> None:
        path.write_bytes(base.read_bytes())
        with tempfile.TemporaryDirectory() as folder, tarfile.open(path, "a") as archive:
            os.chmod(folder, 0o755)  # functions run as another user
            _install(folder, _python_version(base))
            # Scripts made by pip name the Python that ran pip.
            shutil.rmtree(f"{folder}/bin", ignore_errors=True)
            archive.add(folder, "python")
            _add(archive, "python/bin/fdk", FDK_SCRIPT, 0o755)
            for name, content in files.items():
                _add(archive, f"function/{name}", content, 0o644)

    return _kept(
        "fdk-hello", {**files, "base": base.name.encode(), "script": FDK_SCRIPT, "recipe": b"2"}, make
    )


def _install(folder: str, version: str) -> None:
    """The FDK, as examples/hello wants it, for the Python *version* of the image."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    target = ["--only-binary=:all:", f"--python-version={version}"]
    wanted = ["-r", str(HELLO / "requirements.txt"), *FDK_NEEDS]
    subprocess.run([*pip, *target, *wanted], check=True, capture_output=True)


def _python_version(archive: Path) -> str:
    with tarfile.open(archive) as opened:
        for name in opened.getnames():
            if found := re.fullmatch(r"\./usr/bin/python(3\.\d+)", name):
                return found[1]
    raise AssertionError(f"no python in {archive}")


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


RECIPES = {
    FDK_HELLO: Recipe(
        _fdk_hello,
        (
            "ENV PYTHONPATH=/python",
            "WORKDIR /function",
            'ENTRYPOINT ["/python/bin/fdk", "/function/func.py", "handler"]',
        ),
    ),
    BUSYBOX: Recipe(_busybox, ('ENTRYPOINT ["/bin/busybox", "sh", "-c", "eval \\"$RUN\\""]',)),
    QUICK: Recipe(_quick, ('ENTRYPOINT ["/usr/bin/python3", "-I", "/function/func.py"]',)),
    PYTHON: Recipe(partial(_python, *_TO_BUILD), ("ENV PATH=/usr/local/bin:/usr/bin:/bin",)),
    "golden/func:1": Recipe(_goldenfn, _GOLDEN),
    "golden/func:2": Recipe(_goldenfn, ("ENV IMAGE_VAR=from-image-two FN_PATH=image-says", _GOLDEN[1])),
    "golden/volume:1": Recipe(_goldenfn, (*_GOLDEN, "VOLUME /data")),
    "golden/workdir:1": Recipe(_goldenfn, (*_GOLDEN, "WORKDIR /tmp", "USER 1234:1235", 'CMD ["extra-arg"]')),
    "golden/health:1": Recipe(_goldenfn, (*_GOLDEN, _HEALTH)),
}
