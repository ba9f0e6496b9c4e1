"""What ``fn-node doctor`` says of images: what they take of the engine's disk, and what removes them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from runner_node.drivers.settings import DriverSettings
from shared_models.finding import Finding, Level

_ABOUT, _DISK = "images (FN_IMAGE_CLEAN_MAX_SIZE)", "disk of the container engine"
_RECORD = "record of images (FN_IMAGE_RECORD_PATH)"
_MIB = 1 << 20
_LITTLE = 1 << 30
_SHARE = 20
"""A disk is nearly full with less than a GiB, or less than one part of so many, free."""


class Disk(NamedTuple):
    """Bytes of a file system: all, and those that are free."""

    total: int
    free: int


def engine_disk(info: Mapping[str, Any], docker_host: str) -> Disk | None:
    """Where the engine keeps images, by its *info*; None when that is no folder of this machine's. Blocks."""
    folder = str(info.get("DockerRootDir") or "")
    if not docker_host.startswith("unix://") or not os.path.isdir(folder):
        return None
    usage = shutil.disk_usage(folder)
    return Disk(usage.total, usage.free)


def examine_images(settings: DriverSettings, layers: int, disk: Disk | None) -> Iterator[Finding]:
    """*layers*: bytes of all images in the engine, -1 when it does not tell. Blocks."""
    mark = settings.image_clean_max_size
    yield from _room(mark, layers, disk)
    take = f"take {layers // _MIB} MB" if layers >= 0 else "take what the engine does not tell"
    if not mark:
        yield Finding(Level.OK, _ABOUT, f"{take}; the node removes none of them")
        return
    yield Finding(
        Level.OK, _ABOUT, f"{take}; above {mark // _MIB} MB of its own the node removes the least used"
    )
    yield from _record(settings.image_record)


def _room(mark: int, layers: int, disk: Disk | None) -> Iterator[Finding]:
    if disk is None:
        return
    if disk.free < max(_LITTLE, disk.total // _SHARE):
        advice = "lower FN_IMAGE_CLEAN_MAX_SIZE" if mark else "set FN_IMAGE_CLEAN_MAX_SIZE"
        yield Finding(
            Level.WARNING, _DISK, f"nearly full: {disk.free // _MIB} of {disk.total // _MIB} MB are free",
            f"docker system df says what takes it; docker image prune -a, or {advice}",
        )  # fmt: skip
    if mark > (has := min(disk.total, max(layers, 0) + disk.free)):
        yield Finding(
            Level.WARNING, _ABOUT,
            f"images have room for {has // _MIB} MB there, and only above {mark // _MIB} MB some are removed",
            "lower it: the disk is full before",
        )  # fmt: skip


def _record(folder: str) -> Iterator[Finding]:
    if not folder:
        yield Finding(
            Level.WARNING, _RECORD, "is switched off: what is pulled now is not removed after a restart",
            "set it to a folder that survives the node",
        )  # fmt: skip
        return
    there = os.path.abspath(folder)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        yield Finding(
            Level.WARNING, _RECORD,
            f"{folder} cannot be written: {exc.strerror}; what is pulled now is not removed after a restart",
            "make it writable, or set another",
        )  # fmt: skip
