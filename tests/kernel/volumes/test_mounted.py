"""Volumes that are mounted while they are used: quotas, memory, folders of the host; and what is left after a crash."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bothy.errors import Broken, Conflict, Invalid
from bothy.linux import capabilities, filesystems, loops
from bothy.paths import Paths
from bothy.volumes import disk
from bothy.volumes.model import Volume
from bothy.volumes.snapshots import Snapshots
from bothy.volumes.store import Volumes
from tests.kernel.volumes.conftest import left

MIB = 1 << 20


def fill(folder: str) -> int:
    """Write until there is no more room; how many bytes that were."""
    fd = os.open(f"{folder}/filler", os.O_WRONLY | os.O_CREAT)
    try:
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, b"x" * 65536)
        with pytest.raises(OSError, match="No space left"):
            os.write(fd, b"x" * 65536)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


@pytest.fixture
def quota(volumes: Volumes) -> Volume:
    return volumes.create("quota", options={"size": "16m"})


def test_a_quota_holds(volumes: Volumes, quota: Volume) -> None:
    assert os.listdir(quota.mountpoint) == []
    with volumes.mounts.held(quota):
        assert os.listdir(quota.mountpoint) == []
        assert 10 * MIB < fill(quota.mountpoint) <= 16 * MIB
    assert os.listdir(quota.mountpoint) == []
    with volumes.mounts.held(quota):
        assert os.listdir(quota.mountpoint) == ["filler"]
    volumes.remove("quota")


def test_what_is_freed_goes_back_to_the_host(volumes: Volumes, quota: Volume, paths: Paths) -> None:
    assert volumes.usage("quota") < MIB
    hold = volumes.mounts.acquire(quota)
    fill(quota.mountpoint)
    os.sync()
    assert volumes.usage("quota") > 10 * MIB
    os.unlink(f"{quota.mountpoint}/filler")
    volumes.mounts.release(hold)
    assert volumes.usage("quota") < 2 * MIB
    assert (paths.volumes / "quota" / "disk.ext4").stat().st_size == 16 * MIB


def test_it_is_mounted_for_the_first_and_unmounted_after_the_last(volumes: Volumes, quota: Volume, paths: Paths) -> None:
    first = volumes.mounts.acquire(quota)
    Path(quota.mountpoint, "file").write_text("kept")
    second = volumes.mounts.acquire(quota)
    assert len(left(paths.root)) == 2  # one mount, one device
    volumes.mounts.release(first)
    volumes.mounts.release(first)
    assert Path(quota.mountpoint, "file").read_text() == "kept"
    volumes.mounts.release(second)
    assert os.listdir(quota.mountpoint) == []


def test_a_mount_that_others_still_have_shares_its_device(volumes: Volumes, quota: Volume, paths: Paths) -> None:
    """Two devices on one image would be the end of it."""
    hold = volumes.mounts.acquire(quota)
    kept = os.open(quota.mountpoint, os.O_RDONLY)  # so it is unmounted lazily
    volumes.mounts.release(hold)
    device = loops.device_of(str(paths.volumes / "quota" / "disk.ext4"))
    assert device
    with volumes.mounts.held(quota):
        assert [line.split()[-2] for line in left(paths.root)[:1]] == [device]
        Path(quota.mountpoint, "file").write_text("seen")
        assert os.listdir(kept) == ["file"]
    os.close(kept)


def test_what_others_still_have_mounted_keeps_nobody_from_anything(volumes: Volumes, quota: Volume) -> None:
    """A copy of the mount lives on in a namespace that somebody made meanwhile."""
    snapshots = Snapshots(volumes)
    with volumes.mounts.held(quota):
        Path(quota.mountpoint, "file").write_text("before")
        other = subprocess.Popen(["unshare", "-m", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdout is not None
        other.stdout.readline()
    try:
        snapshots.take("quota", "s")
        with volumes.mounts.held(quota):
            Path(quota.mountpoint, "file").write_text("after")
        if not capabilities.effective() & capabilities.mask(["CAP_SYS_RESOURCE"]):
            volumes.resize("quota", 32 * MIB)
        with volumes.mounts.held(quota):
            assert Path(quota.mountpoint, "file").read_text() == "after"
        snapshots.restore("quota", "s")
        with volumes.mounts.held(quota):
            assert Path(quota.mountpoint, "file").read_text() == "before"
    finally:
        other.communicate()


def test_memory_is_gone_afterwards(volumes: Volumes) -> None:
    volume = volumes.create("memory", options={"type": "tmpfs", "o": "size=1m,mode=1770,gid=7"})
    with volumes.mounts.held(volume):
        info = os.stat(volume.mountpoint)
        assert (info.st_mode & 0o7777, info.st_gid) == (0o1770, 7)
        assert fill(volume.mountpoint) == MIB
    with volumes.mounts.held(volume):
        assert os.listdir(volume.mountpoint) == []


def test_a_folder_of_the_host_outlives_its_volume(volumes: Volumes, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("host's")
    volume = volumes.create("bound", options={"type": "none", "o": "bind,ro", "device": str(folder)})
    hold = volumes.mounts.acquire(volume)
    assert Path(volume.mountpoint, "file").read_text() == "host's"
    with pytest.raises(OSError, match="Read-only"):
        Path(volume.mountpoint, "new").write_text("")
    volumes.remove("bound")
    volumes.mounts.release(hold)
    assert (folder / "file").read_text() == "host's"


@pytest.mark.parametrize("name", [".gone-0123456789abcdef", ".new-0123456789abcdef"])
def test_a_crash_never_costs_what_is_mounted_from_elsewhere(volumes: Volumes, paths: Paths, tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    place = paths.volumes / name / "_data"
    place.mkdir(parents=True)
    subprocess.run(["mount", "--bind", tmp_path / "precious", place], check=True)
    volumes.recover()
    assert (tmp_path / "precious" / "file").read_text() == "precious"
    assert not place.parent.exists()


def test_recovery_unmounts_what_nobody_holds_and_thaws(volumes: Volumes, quota: Volume, paths: Paths) -> None:
    other = volumes.create("other", options={"size": "16m"})
    volumes.mounts.acquire(quota)
    volumes.mounts.acquire(other)
    fd = os.open(other.mountpoint, os.O_RDONLY)
    filesystems.freeze(fd)
    again = Volumes(paths)  # the engine died
    hold = again.mounts.acquire(other)
    again.recover()
    assert not filesystems.thaw(fd)
    os.close(fd)
    Path(other.mountpoint, "file").write_text("written")
    assert quota.mountpoint not in Path("/proc/self/mountinfo").read_text()
    assert other.mountpoint in Path("/proc/self/mountinfo").read_text()
    again.mounts.release(hold)


def test_what_the_kernel_refuses_is_told(volumes: Volumes) -> None:
    known = Path("/proc/filesystems").read_text().split()
    server = volumes.create("server", options={"type": "nfs", "o": "addr=127.0.0.1,soft,timeo=1", "device": ":/export"})
    if "nfs" not in known:
        with pytest.raises(Broken) as caught:
            volumes.mounts.acquire(server)
        assert caught.value.message == (
            f"error while mounting volume '{server.mountpoint}': failed to mount local volume: "
            f"mount :/export:{server.mountpoint}, data: addr=127.0.0.1,soft,timeo=1: no such device"
        )
    volume = volumes.create("nowhere", options={"type": "none", "o": "bind", "device": "/nowhere/at/all"})
    with pytest.raises(Broken, match=r"failed to mount local volume: mount /nowhere/at/all:.*, flags: 0x1000: no such file"):
        volumes.mounts.acquire(volume)
    assert not volumes.mounts.is_held(volume.name)


def test_a_quota_grows(volumes: Volumes, quota: Volume) -> None:
    with volumes.mounts.held(quota):
        Path(quota.mountpoint, "file").write_text("kept")
    grown = volumes.resize("quota", 64 * MIB)
    assert (grown.size, grown.options) == (64 * MIB, {"size": "64m"})
    with volumes.mounts.held(grown):
        assert os.listdir(quota.mountpoint) == ["file"]
        assert Path(quota.mountpoint, "file").read_text() == "kept"
        assert 40 * MIB < fill(quota.mountpoint) <= 64 * MIB
    with pytest.raises(Invalid, match="has 64m already"):
        volumes.resize("quota", 32 * MIB)
    volumes.create("plain")
    with pytest.raises(Invalid, match="has no quota"):
        volumes.resize("plain", 64 * MIB)


def test_a_quota_in_use_grows_if_the_kernel_lets_us(volumes: Volumes, quota: Volume) -> None:
    may = bool(capabilities.effective() & capabilities.mask(["CAP_SYS_RESOURCE"]))
    with volumes.mounts.held(quota):
        Path(quota.mountpoint, "file").write_text("kept")
        if may:
            assert volumes.resize("quota", 64 * MIB).size == 64 * MIB
            assert fill(quota.mountpoint) > 40 * MIB
        else:
            with pytest.raises(Conflict, match="quota is in use"):
                volumes.resize("quota", 64 * MIB)
            assert 10 * MIB < fill(quota.mountpoint) <= 16 * MIB
        assert Path(quota.mountpoint, "file").read_text() == "kept"


def test_a_quota_larger_than_the_disk_takes_only_what_is_used(volumes: Volumes, paths: Paths) -> None:
    assert shutil.disk_usage(paths.root.parent).total < 2 << 40
    volumes.create("huge", options={"size": "2t"})
    assert volumes.usage("huge") < 64 * MIB
    volumes.remove("huge")


def test_nothing_is_left_of_a_quota_that_could_not_be_made(volumes: Volumes, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, size: int) -> None:
        Path(path).write_bytes(b"half")
        raise Broken("mkfs.ext4 failed")

    monkeypatch.setattr(disk, "make", refuse)
    with pytest.raises(Broken):
        volumes.create("quota", options={"size": "16m"})
    assert list(paths.volumes.iterdir()) == []
