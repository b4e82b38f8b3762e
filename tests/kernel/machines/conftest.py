from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.linux import links, namespaces, syscalls
from bothy.machines.templates import MIB, Templates
from bothy.paths import Paths
from tests.support.machines import Machines, make_disk, qemus, taps


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A state root with nothing in it."""
    folder = tmp_path_factory.mktemp("machines")
    return Paths(folder / "root", folder / "run")


@pytest.fixture(scope="session")
def template(paths: Paths) -> Path:
    return Templates(paths).ensure(1, 128 * MIB)


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_disk(tmp_path_factory.mktemp("disk"))


@pytest.fixture
def network() -> Iterator[None]:
    """A network namespace of the test's own, which is its machines' host."""
    before = namespaces.open_namespace("network")
    syscalls.unshare(syscalls.CLONE_NEWNET)
    links.loopback_up()
    yield
    namespaces.join(before, "network")
    os.close(before)


@pytest.fixture
def machines(template: Path, disk: Path, tmp_path: Path, network: None) -> Iterator[Machines]:
    """Machines that settle: no QEMU, tap, mount, descriptor or folder outlives them."""
    fds = set(os.listdir("/proc/self/fd"))
    made = Machines(template, disk, tmp_path)
    yield made
    made.close()
    assert qemus() == []
    assert taps() == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert set(os.listdir("/proc/self/fd")) == fds
    assert list(tmp_path.glob("keeper-*/*")) == []
