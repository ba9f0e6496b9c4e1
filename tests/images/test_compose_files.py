"""What docker-compose.yml hands to programs of others, checked by those programs; what it says of itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine.packages import need

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def _networks(service: dict[str, Any]) -> set[str]:
    return set(service.get("networks", ()))


def test_haproxy_accepts_the_balancers_configuration() -> None:
    file = ROOT / "deploy/compose/haproxy.cfg"
    done = subprocess.run([need("haproxy", "haproxy"), "-c", "-f", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_prometheus_accepts_its_configuration_also_while_there_are_no_rules() -> None:
    file = ROOT / "deploy/compose/prometheus.yml"
    command = [need("promtool", "prometheus"), "check", "config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_password_has_a_default_and_what_is_missing_is_said_once_and_clearly() -> None:
    text, made = COMPOSE.read_text(), (ROOT / "deploy/compose/env.sh").read_text()
    secrets = set(re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|TOKEN)\w*)", text))
    assert secrets
    for name in secrets:
        assert f"${{{name}:-" not in text
        assert f"${{{name}:?is not set - make compose-env writes it into .env}}" in text
        assert name in made


def test_files_that_are_mounted_are_there(compose: dict[str, Any]) -> None:
    mounted = [
        str(volume) for service in compose["services"].values() for volume in service.get("volumes", ())
    ]
    files = [ROOT / volume.split(":")[0] for volume in mounted if volume.startswith("./")]
    names = [file for file in files if file.suffix]
    assert names
    assert [file for file in names if not file.is_file()] == []


def test_engines_share_no_network_with_nodes_or_stores(compose: dict[str, Any]) -> None:
    services = compose["services"]
    engines = {name for name in services if name.startswith("engine-")}
    theirs = set().union(*(_networks(services[name]) for name in engines))
    assert len(engines) == 2
    assert theirs
    assert [name for name in services if name not in engines and _networks(services[name]) & theirs] == []


def test_only_api_nodes_and_their_migration_reach_the_stores(compose: dict[str, Any]) -> None:
    reach = {name for name, service in compose["services"].items() if "stores" in _networks(service)}
    assert reach == {"api", "migrate", "postgres", "redis", "s3"}


def test_images_of_others_have_a_version(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values() if "FN_" not in service["image"]]
    assert images
    assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []
