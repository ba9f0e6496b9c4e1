"""The private engine of tests: it ends at once, with all that runs in it."""

from __future__ import annotations

import os
import time

import docker
import pytest

from tests.engine import dockerd
from tests.engine.images import BUSYBOX, Images
from tests.engine.packages import Missing, missing

pytestmark = pytest.mark.engine


def test_a_private_engine_ends_with_its_containers_however_long_these_would_take(
    temporary_folder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FN_TEST_DOCKER_HOST", raising=False)
    try:
        with dockerd.engine() as host:
            client = docker.DockerClient(base_url=host, version="auto")
            container = client.containers.create(
                Images(host).need(BUSYBOX), network_mode="none", stop_signal="SIGWINCH",
                environment={"RUN": "sleep 600"},
            )  # fmt: skip
            container.start()
            container.reload()
            process = container.attrs["State"]["Pid"]
            os.kill(process, 0)
            client.close()
            began = time.monotonic()
    except Missing as exc:
        missing(f"NO CONTAINER ENGINE: {exc}")
    assert time.monotonic() - began < 8, "dockerd gives a container ten seconds"
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
