"""Volumes in a folder of their own; afterwards nothing of them is mounted and no loop device has a file of theirs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.paths import Paths
from bothy.volumes.snapshots import Snapshots
from bothy.volumes.store import Volumes


def backing_files() -> list[str]:
    """What loop devices of this host have below a folder of tests."""
    found = []
    for name in os.listdir("/sys/block"):
        try:
            found.append(Path(f"/sys/block/{name}/loop/backing_file").read_text().strip())
        except OSError:
            continue
    return found


def left(folder: Path) -> list[str]:
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    return mounts + [file for file in backing_files() if file.startswith(str(folder))]


def rest(folder: Path) -> None:
    """Wait until the kernel has cleared the devices of what was unmounted, which it does in the background."""
    end = time.monotonic() + 20
    while any(file.startswith(str(folder)) for file in backing_files()) and time.monotonic() < end:
        time.sleep(0.01)


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    paths = Paths(tmp_path / "root", tmp_path / "run")
    yield paths
    rest(paths.root)
    assert left(paths.root) == []
    if paths.volumes.exists():
        assert [p.name for p in paths.volumes.iterdir() if p.name.startswith(".")] == []


@pytest.fixture
def volumes(paths: Paths) -> Volumes:
    return Volumes(paths)


@pytest.fixture
def snapshots(volumes: Volumes) -> Snapshots:
    return Snapshots(volumes)
