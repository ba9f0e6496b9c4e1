"""Resources, logs, the host, content types: parts without a loop."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from runner_node import calls, content_type, host
from runner_node.durations import go_duration
from runner_node.func_logs import CallLog
from runner_node.resources import Resources
from shared_models import errors
from shared_models.app import App
from shared_models.call import Call
from shared_models.fn import Fn

VECTORS = Path(__file__).parents[2] / "wire" / "scenarios" / "vectors"


# -- resources ---------------------------------------------------------------------------------


def test_tokens_are_taken_whole_or_not_at_all():
    resources = Resources(1000, 2000)
    assert resources.take(800, 2000, sync=True)
    assert not resources.take(100, 1, sync=True)
    assert (resources.free_memory, resources.free_cpus) == (200, 0)
    resources.give(800, 2000)
    assert (resources.free_memory, resources.free_cpus) == (1000, 2000)


def test_a_fifth_is_kept_for_sync_calls():
    resources = Resources(1000, 0)
    assert resources.take(800, 0, sync=False)
    assert not resources.take(1, 0, sync=False)
    assert resources.take(200, 0, sync=True)


def test_a_function_larger_than_the_async_share_may_run_alone():
    resources = Resources(1000, 0)
    assert resources.missing(900, 0, sync=False) == (0, 0)
    assert resources.take(900, 0, sync=False)


def test_what_is_leaving_is_not_missing():
    resources = Resources(1000, 0)
    resources.take(1000, 0, sync=True)
    assert resources.missing(300, 0, sync=True) == (300, 0)
    resources.leave(400, 0)
    assert resources.missing(300, 0, sync=True) == (0, 0)
    resources.give(400, 0, left=True)
    assert (resources.free_memory, resources.leaving_memory) == (400, 0)


def test_async_pulls_stop_at_four_fifths_of_their_share():
    resources = Resources(1000, 0)
    assert resources.async_room(0) == 640
    resources.take(640, 0, sync=False)
    assert resources.async_room(0) == 0
    assert resources.async_room(100) == 100


# -- logs --------------------------------------------------------------------------------------


def test_a_log_keeps_what_fits_and_says_that_there_was_more():
    log = CallLog(10)
    log.write(b"12345")
    log.write(b"6789012345")
    log.write(b"never seen")
    assert log.close() == b"1234567890\n-----max log size 10 bytes exceeded, truncating log-----\n"


def test_a_log_of_exactly_the_limit_says_so_too():
    log = CallLog(5)
    log.write(b"12345")
    assert log.close().endswith(b"truncating log-----\n")


def test_a_closed_log_takes_nothing():
    log = CallLog(0)
    log.write(b"mine")
    assert log.close() == b"mine"
    log.write(b"somebody else's")
    assert log.close() == b"mine"


# -- the host ----------------------------------------------------------------------------------


def machine(root: Path, **files: str) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 12582912 kB\nMemAvailable: 10485760 kB\n", **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_memory_is_what_is_available_less_a_tenth(tmp_path):
    assert host.available_memory(machine(tmp_path)) == (10 << 30) - (1 << 30)


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ],
    ids=["cgroup v2", "cgroup v1"],
)
def test_a_cgroup_limit_counts(tmp_path, limit, used):
    root = machine(tmp_path, **{limit: f"{4 << 30}\n", used: f"{1 << 30}\n"})
    assert host.available_memory(root) == (3 << 30) - (3 << 30) // 10
    assert host.memory_limit(root) == 4 << 30


def test_no_limit_is_no_limit(tmp_path):
    root = machine(tmp_path, **{"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/cpu.max": "max 100000\n"})
    assert host.available_memory(root) == 9 << 30
    assert host.memory_limit(root) == 12 << 30
    assert host.available_cpus(root) >= 1000


def test_a_cpu_quota_counts(tmp_path):
    assert host.available_cpus(machine(tmp_path, **{"sys/fs/cgroup/cpu.max": "50000 100000\n"})) == 500


# -- content types -----------------------------------------------------------------------------

SNIFFED = [
    case
    for case in json.loads((VECTORS / "sniff.json").read_text())["cases"]
    if not case["content_type"].startswith("application/json")  # a rule of /r/ alone
]


@pytest.mark.parametrize("case", SNIFFED, ids=lambda case: case["b64"][:16])
def test_content_types_are_those_of_the_original(case):
    assert content_type.detect(base64.b64decode(case["b64"])) == case["content_type"]


# -- targets -----------------------------------------------------------------------------------

FN = Fn(id="F", app_id="A", name="f", image="i", memory=64, timeout=3, idle_timeout=4, config={"K": "fn"})
APP = App(id="A", name="a", config={"K": "app", "FN_FN_ID": "spoofed", "B": "b"})


def test_configuration_is_overlaid_in_order():
    env = calls.of_fn(FN, APP).env
    assert env["K"] == "fn"
    assert env["B"] == "b"
    assert env["FN_FN_ID"] == "F"
    assert env["FN_MEMORY"] == "64"


def test_the_slot_key_changes_with_what_a_container_is_made_from():
    key = calls.of_fn(FN, APP).key
    assert calls.of_fn(FN, APP).key == key
    for change in ({"image": "j"}, {"memory": 65}, {"timeout": 9}, {"config": {"K": "other"}}):
        fields = {name: getattr(FN, name) for name in FN.__struct_fields__}
        assert calls.of_fn(Fn(**{**fields, **change}), APP).key != key


def test_a_format_that_is_not_spoken_is_named():
    with pytest.raises(errors.Invalid, match="'grpc'"):
        calls.of_call(Call(id="x", image="i", format="grpc"))


def test_headers_that_could_break_out_of_their_line_are_left_out():
    call = Call(headers={"X": ["good", "bad\r\nFn-Call-Id: mine"], "Y:": ["z"], "": ["e"]})
    assert calls.header_list(call) == [("X", "good")]


# -- routes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", json.loads((VECTORS / "durations.json").read_text())["cases"], ids=str)
def test_durations_are_written_as_go_writes_them(case):
    assert go_duration(case["ns"]) == case["text"]
