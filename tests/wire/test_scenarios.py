"""Every public recording of what is built so far, replayed on our nodes."""

import json
import re
from math import inf
from pathlib import Path

import pytest

from runner_node.drivers.docker import open_docker
from runner_node.drivers.fake import open_fake
from runner_node.drivers.settings import DriverSettings
from tests.engine.images import RECIPES
from tests.wire.fn_node import FnNode, serving_exchanges
from tests.wire.matching import Bindings
from tests.wire.objects import objects_at
from tests.wire.replayer import Run

HERE = Path(__file__).parent
DIFFERENCES = json.loads((HERE / "differences.json").read_text())
LIMITS = {"max_response_size": 2048, "max_header_size": 1024, "max_request_size": 1024}


def load(path):
    """The scenario, with our own answer at the steps where we differ on purpose."""
    scenario = json.loads(path.read_text())
    for step in scenario.get("steps", ()):
        if "metrics" in step.get("response", ()):
            step.pop("sleep_ms", None)  # the original counts every ten seconds, ours at once
    for number, difference in DIFFERENCES.get(scenario["name"], {}).items():
        step = scenario["steps"][int(number)]
        for recorded in ("quirk", "or"):
            step.pop(recorded, None)
        step["response"] = difference["response"]
        if "until" in difference:  # our answer may take a moment to be true
            step["until"] = difference["until"]
    return scenario


def scenarios(*profiles):
    found = [
        load(path) for profile in profiles for path in sorted((HERE / "scenarios" / profile).glob("*.json"))
    ]
    assert found
    return found


def described(scenario, differences):
    lines = []
    for number, problems in differences.items():
        steps = scenario["steps"]
        asked = steps[number].get("request", {}) if number < len(steps) else {}
        lines.append(f"step {number} {asked.get('method', '')} {asked.get('path', '')}")
        lines += [f"    {problem}" for problem in problems]
    return "\n".join(lines)


async def replay(scenario, urls, *played, **more):
    differences = await Run(scenario, urls, *played, **more).differences()
    assert not differences, described(scenario, differences)


def need_images(scenario, engine_images):
    # Not only scenario["images"]: some recordings do not list all that they ask for.
    for image in RECIPES:
        if f'"{image}"' in json.dumps(scenario):
            engine_images.need(image)


def named(scenarios):
    return [pytest.param(scenario, id=scenario["name"]) for scenario in scenarios]


RECORDED = scenarios("head-full", "head-limits", "head-publiclb", "head-api")
V1 = [one for one in scenarios("2018-full") if one["name"].startswith("v1-")] + scenarios("2018-api")

ROUTES = [
    one
    for one in scenarios("2018-full", "2018-limits")
    if one["name"].startswith(("inv-", "hybrid-full-node", "metrics-", "node-"))
]
CORS = scenarios("2018-cors")
HYBRID = scenarios("2018-hybrid")
OF_RUNNERS = scenarios("2018-runner")
IN_S3 = scenarios("2018-s3")
ELSEWHERE = {
    "v2-2018-": "a draft of /v2 that 0.3.753 replaced; head-apps, -fns and -triggers are replayed instead",
}
"""Recordings that are not replayed here, by the beginning of their name, and why."""
EVERYTHING = [*RECORDED, *V1, *ROUTES, *CORS, *HYBRID, *OF_RUNNERS, *IN_S3]
ROUTE_LIMITS = {"max_response_size": 2048, "max_request_size": 1024, "max_log_size": 100}


@pytest.mark.parametrize(
    "scenario", named(one for one in RECORDED if one["area"] != "invoke" and one["name"] != "node-head-full")
)
async def test_an_api_node_answers_as_recorded(scenario, api_node):
    public = "https://lb.example/" if scenario["profile"] == "head-publiclb" else ""
    async with api_node(public_lb_url=public) as base_url:
        await replay(scenario, base_url)


@pytest.mark.parametrize("scenario", named(V1))
async def test_the_first_api_and_runners_of_fn_are_served_as_recorded(scenario, api_node):
    async with api_node() as base_url:
        await replay(scenario, base_url)


async def test_a_full_node_answers_unknown_paths_as_recorded(full_node):
    (scenario,) = (one for one in RECORDED if one["name"] == "node-head-full")
    async with open_fake({}) as driver, full_node(driver) as base_url:
        await replay(scenario, base_url)


@pytest.fixture
async def docker(engine, tmp_path_factory):
    # Sockets have short paths only.
    settings = DriverSettings(docker_host=engine, iofs_path=str(tmp_path_factory.mktemp("io")))
    async with open_docker(settings, "wire") as driver:
        yield driver


@pytest.mark.engine
@pytest.mark.parametrize("scenario", named(one for one in RECORDED if one["area"] == "invoke"))
async def test_functions_are_called_as_recorded(scenario, docker, engine_images, full_node):
    need_images(scenario, engine_images)
    limits = LIMITS if scenario["profile"] == "head-limits" else {}
    async with full_node(docker, **limits) as base_url:
        await replay(scenario, base_url)


@pytest.mark.engine
@pytest.mark.parametrize("scenario", named(ROUTES))
async def test_routes_are_called_as_recorded(scenario, docker, engine_images, full_node):
    need_images(scenario, engine_images)
    limits = ROUTE_LIMITS if scenario["profile"] == "2018-limits" else {}
    idle = min(
        (float(each) for each in re.findall(r'"idle_timeout": (\d+)', json.dumps(scenario))), default=inf
    )
    for tries in (1, 2, 3):
        async with full_node(docker, **limits) as base_url:
            run = Run(scenario, base_url)
            differences = await run.differences()
        # A container that was idle for so long, since a busy machine stood still, has rightly gone.
        if not differences or run.slowest < idle / 2 or tries == 3:
            break
    assert not differences, described(scenario, differences)


@pytest.mark.parametrize("scenario", named(CORS))
async def test_web_pages_are_answered_as_recorded(scenario, full_node):
    listed = {
        "cors_origins": ("http://one.example", "http://two.example"),
        "cors_headers": ("X-One", "X-Two"),
    }
    async with open_fake({}) as driver, full_node(driver, **listed) as base_url:
        await replay(scenario, base_url)


@pytest.mark.engine
@pytest.mark.parametrize("scenario", named(HYBRID))
async def test_an_api_node_and_a_runner_node_answer_as_recorded(
    scenario, docker, engine_images, api_node, runner_node
):
    need_images(scenario, engine_images)
    async with api_node() as api, runner_node(docker, api) as runner:
        await replay(scenario, {"api": api, "runner": runner})


@pytest.mark.engine
@pytest.mark.parametrize("scenario", named(OF_RUNNERS))
async def test_an_unmodified_api_node_is_asked_as_recorded(scenario, docker, engine_images, runner_node):
    need_images(scenario, engine_images)
    bindings = Bindings(dict(scenario["vars"]))
    node = FnNode(scenario, bindings)
    async with serving_exchanges(node) as api, runner_node(docker, api) as runner:
        await replay(scenario, {"runner": runner}, bindings, node)


@pytest.mark.engine
@pytest.mark.parametrize("scenario", named(IN_S3))
async def test_calls_are_kept_in_an_object_store_as_recorded(
    scenario, docker, engine_images, full_node, s3, tmp_path
):
    need_images(scenario, engine_images)
    url = f"{s3.url}?prefix={tmp_path.name}"
    async with full_node(docker, logstore_url=url) as base_url:
        await replay(scenario, base_url, objects=lambda: objects_at(url))


def test_every_recording_is_replayed_or_there_is_a_reason():
    replayed = {one["name"] for one in EVERYTHING}
    left = [path.stem for path in (HERE / "scenarios").glob("*-*/*.json") if path.stem not in replayed]
    assert all(any(name.startswith(beginning) for beginning in ELSEWHERE) for name in left), left
    assert all(any(name.startswith(beginning) for name in left) for beginning in ELSEWHERE)


def test_every_difference_is_at_a_recorded_step_and_has_a_reason():
    recorded = {one["name"]: len(one["steps"]) for one in EVERYTHING}
    for name, steps in DIFFERENCES.items():
        for number, difference in steps.items():
            assert 0 <= int(number) < recorded[name]
            assert difference["reason"]
