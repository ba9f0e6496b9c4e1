"""``fn-node doctor``: who reaches a node; clocks, memory, secrets, logins and receivers."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path

import pytest

from runner_node.engine_checkup import judged
from services.checkup import examine_stores
from services.stores import StoreSettings
from shared_models.finding import Level
from shared_models.otlp_checkup import examine_otlp
from shared_models.otlp_settings import OTLPSettings
from tests.integration.test_doctor import doctor
from tests.servers.collector import running_collector
from tests.servers.ports import free_port

PASSWORD = "hush-hush"
INFO = {
    "ServerVersion": "28.0", "CgroupDriver": "systemd", "CgroupVersion": "2", "MemoryLimit": True,
    "SwapLimit": True, "PidsLimit": True, "CpuCfsPeriod": True, "CpuCfsQuota": True, "MemTotal": 1 << 30,
}  # fmt: skip


@pytest.mark.parametrize(
    ("host", "admin", "tokens", "metrics"),
    [
        ("0.0.0.0", "", True, True),
        ("0.0.0.0", "9000", True, False),
        ("127.0.0.1", "", False, False),
    ],
)
def test_what_everybody_who_reaches_the_port_may_do_is_warned_of(
    tmp_path: Path, host: str, admin: str, tokens: bool, metrics: bool
) -> None:
    code, said = doctor(tmp_path, "api", FN_HOST=host, **({"FN_ADMIN_PORT": admin} if admin else {}))
    assert code == 0, said
    assert ("everybody who reaches this port may change and remove all apps" in said) == tokens
    assert ("warning metrics (FN_ADMIN_PORT): /metrics is on the port" in said) == metrics
    assert ("-> set FN_ADMIN_PORT, and keep" in said) == metrics


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
@pytest.mark.parametrize(
    ("off", "level", "words"),
    [
        (0.0, Level.OK, "agrees with this machine's"),
        (3600.0, Level.WARNING, "s behind this machine's"),
        (-3600.0, Level.WARNING, "s ahead of this machine's"),
    ],
)
async def test_the_clock_of_a_database_is_compared(
    request: pytest.FixtureRequest, server: str, off: float, level: Level, words: str
) -> None:
    url = str(request.getfixturevalue(server).url)
    settings = StoreSettings(datastore_url=url, queue_url="memory://")
    found = [one async for one in examine_stores(settings, lambda: time.time() + off)]
    [clock] = [one for one in found if one.about.startswith("clock of the datastore")]
    assert (clock.level, words in clock.says) == (level, True), clock
    assert bool(clock.advice) == (level is Level.WARNING)


@pytest.mark.parametrize(
    ("variable", "cut"),
    [
        ("FN_HTTP_DRAIN", "requests that take longer are cut off"),
        ("FN_DRAIN_SECS", "detached calls that take longer are cut off, and run again elsewhere"),
    ],
)
def test_a_stop_that_cuts_the_longest_function_is_warned_of(tmp_path: Path, variable: str, cut: str) -> None:
    enough = {"FN_DRIVER": "process", "FN_HTTP_DRAIN": "300", "FN_DRAIN_SECS": "300"}
    code, said = doctor(tmp_path, "full", **enough)
    assert (code, "stop of the node" in said) == (0, False), said
    code, said = doctor(tmp_path, "full", **{**enough, variable: "45"})
    assert (code, said.count("stop of the node")) == (0, 1), said
    assert f"({variable}): waits 45 s, and a function may take 300 s: {cut}" in said
    assert "-> set it to 310, and kill the node no sooner" in said


def test_memory_that_the_machine_does_not_have_is_warned_of(tmp_path: Path) -> None:
    code, said = doctor(tmp_path, "full", FN_DRIVER="process", FN_MAX_TOTAL_MEMORY_BYTES=str(1 << 50))
    assert code == 0, said
    assert "FN_MAX_TOTAL_MEMORY_BYTES is 1073741824 MB, and this machine or container has " in said
    assert "-> lower it, or raise the limit" in said


def test_secrets_that_everybody_can_read_are_warned_of_by_name(tmp_path: Path) -> None:
    secret = tmp_path / "secrets" / "shop" / "key"
    secret.parent.mkdir(parents=True)
    secret.write_text(PASSWORD)
    tmp_path.chmod(0o755)
    for mode, words in ((0o644, f"every user of this machine can read {secret}"), (0o640, "has 1 secrets")):
        secret.chmod(mode)
        code, said = doctor(tmp_path, "full", FN_DRIVER="process", FN_SECRETS_PATH=str(tmp_path / "secrets"))
        assert (code, words in said) == (0, True), said
        assert ("-> chmod -R o-rwx" in said) == (mode == 0o644)
        assert PASSWORD not in said


def test_a_folder_of_secrets_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, why in (("none", "No such file or directory"), ("file", "Not a directory")):
        path = tmp_path / name
        code, said = doctor(tmp_path, "full", FN_DRIVER="process", FN_SECRETS_PATH=str(path))
        assert (code, f"secrets (FN_SECRETS_PATH): {path} cannot be read: {why}" in said) == (1, True), said


def test_logins_are_told_by_their_hosts_and_bad_files_by_their_names(tmp_path: Path) -> None:
    login = {"auth": base64.b64encode(f"ann:{PASSWORD}".encode()).decode()}
    (tmp_path / "good").write_text(json.dumps({"auths": {"registry.example:5000": login}}))
    (tmp_path / "bad").write_text(f'{{"auths": {PASSWORD}')
    (tmp_path / "odd").write_text(json.dumps({"auths": {"odd.example": {"auth": PASSWORD}}}))
    given = ",".join(str(tmp_path / name) for name in ("good", "bad", "odd"))
    _, said = doctor(tmp_path, "full", FN_DOCKER_CONFIG=given, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    about = "logins at registries (FN_DOCKER_CONFIG)"
    assert f"ok      {about}: for registry.example:5000\n" in said
    assert f"warning {about}: registry credentials {tmp_path}/bad: must be JSON" in said
    assert f"warning {about}: registry credentials {tmp_path}/odd: entry odd.example: auth must be" in said
    assert PASSWORD not in said
    assert login["auth"] not in said


def test_an_engine_with_all_limits_is_well() -> None:
    found = list(judged(INFO, 1 << 30))
    assert {one.level for one in found} == {Level.OK}
    assert found[0].says == "version 28.0, cgroup 2, by systemd"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"SwapLimit": False}, "it cannot limit swap:"),
        ({"MemoryLimit": False, "PidsLimit": False}, "it cannot limit memory, processes:"),
        ({"CpuCfsQuota": False}, "it cannot limit CPU:"),
        ({"CgroupDriver": "none"}, "it cannot limit memory, swap, processes, CPU:"),
        ({"MemTotal": 512 << 20}, "its machine has 512 MB, and functions may take 1024 MB"),
    ],
)
def test_what_an_engine_cannot_enforce_is_warned_of(told: dict[str, object], words: str) -> None:
    [bad] = [one for one in judged({**INFO, **told}, 1 << 30) if one.level is not Level.OK]
    assert (bad.level, words in bad.says, bool(bad.advice)) == (Level.WARNING, True, True), bad


async def test_a_receiver_of_traces_is_asked_as_the_node_would(tmp_path: Path) -> None:
    async with running_collector() as collector:
        settings = OTLPSettings(url=collector.url, headers=(("x-token", PASSWORD),))
        for status, level, advice in (
            (200, Level.OK, ""),
            (401, Level.WARNING, "correct FN_OTLP_HEADERS"),
            (404, Level.WARNING, "correct FN_OTLP_URL"),
        ):
            collector.status = status
            [found] = [one async for one in examine_otlp(settings)]
            assert (found.level, found.advice.startswith(advice)) == (level, True), found
        assert collector.headers[-1]["x-token"] == PASSWORD
    assert [one async for one in examine_otlp(OTLPSettings())] == []
    url = f"http://127.0.0.1:{free_port()}"
    code, said = await asyncio.to_thread(doctor, tmp_path, "api", FN_OTLP_URL=url)
    assert (code, f"receiver of traces (FN_OTLP_URL): {url} does not answer: " in said) == (0, True), said
