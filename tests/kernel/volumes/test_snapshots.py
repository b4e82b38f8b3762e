"""Snapshots and clones of plain volumes and of those with a quota, on disks that share blocks and on others."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.errors import Conflict, Invalid, NotFound, Unsupported
from bothy.paths import Paths
from bothy.volumes.snapshots import Snapshots
from bothy.volumes.store import Volumes
from tests.kernel.volumes.conftest import rest

MIB = 1 << 20
KINDS = pytest.mark.parametrize("kind", [{}, {"size": "32m"}], ids=["plain", "quota"])


def write(volumes: Volumes, name: str, file: str, text: str) -> None:
    volume = volumes.get(name)
    with volumes.mounts.held(volume):
        Path(volume.mountpoint, file).write_text(text)


def read(volumes: Volumes, name: str) -> dict[str, str]:
    volume = volumes.get(name)
    with volumes.mounts.held(volume):
        return {path.name: path.read_text() for path in Path(volume.mountpoint).iterdir()}


@KINDS
def test_a_volume_becomes_what_it_was(volumes: Volumes, snapshots: Snapshots, kind: dict[str, str]) -> None:
    volumes.create("data", options=kind)
    write(volumes, "data", "file", "before")
    taken = snapshots.take("data", "monday")
    assert (taken.ref, taken.atomic, taken.size) == ("data@monday", True, volumes.get("data").size)
    write(volumes, "data", "file", "after")
    write(volumes, "data", "more", "after")
    assert snapshots.list("data") == [taken] == snapshots.list()
    with pytest.raises(Conflict, match="restore data: volume is in use - \\[one\\]"):
        snapshots.restore("data", "monday", lambda: ["one"])
    snapshots.restore("data", "monday")
    assert read(volumes, "data") == {"file": "before"}
    snapshots.restore("data", "monday")
    snapshots.remove("data", "monday")
    assert snapshots.list() == []
    assert read(volumes, "data") == {"file": "before"}
    volumes.remove("data")


@KINDS
def test_a_clone_is_a_volume_of_its_own(volumes: Volumes, snapshots: Snapshots, kind: dict[str, str]) -> None:
    volumes.create("data", labels={"a": "1", "b": "2"}, options=kind)
    write(volumes, "data", "file", "before")
    snapshots.take("data", "monday")
    write(volumes, "data", "file", "after")
    made, atomic = snapshots.clone("data", "now", labels={"b": "3"})
    assert (made, atomic) == (volumes.get("now"), True)
    assert (made.labels, made.options) == ({"a": "1", "b": "3"}, kind)
    snapshots.clone("data", "then", "monday")
    write(volumes, "data", "file", "much later")
    assert (read(volumes, "now"), read(volumes, "then")) == ({"file": "after"}, {"file": "before"})
    with pytest.raises(Conflict, match="volume now exists"):
        snapshots.clone("data", "now")
    with pytest.raises(NotFound, match="get data@never: no such snapshot"):
        snapshots.clone("data", "other", "never")
    assert [v.name for v in volumes.list()] == ["data", "now", "then"]


def test_a_quota_in_use_is_whole_in_its_snapshot(volumes: Volumes, snapshots: Snapshots) -> None:
    """Somebody writes pairs of files all the time: never has a snapshot the second without the whole first."""
    volume = volumes.create("data", options={"size": "32m"})
    ended = threading.Event()
    fds = len(os.listdir("/proc/self/fd"))

    def work() -> None:
        number = 0
        while not ended.is_set():
            for place in ("a", "b"):
                fd = os.open(f"{volume.mountpoint}/{place}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.write(fd, str(number).encode() * 5000)
                os.fsync(fd)
                os.close(fd)
                os.rename(f"{volume.mountpoint}/{place}.new", f"{volume.mountpoint}/{place}")
            number += 1

    with volumes.mounts.held(volume):
        writer = threading.Thread(target=work)
        writer.start()
        taken = [snapshots.take("data", f"s{number}", lambda: ["writer"]) for number in range(5)]
        ended.set()
        writer.join()
    assert all(snapshot.atomic for snapshot in taken)
    for number in range(5):
        snapshots.clone("data", f"clone{number}", f"s{number}")
        found = read(volumes, f"clone{number}")
        if "b" in found:
            first, second = found["a"], found["b"]
            assert first == first[: len(first) // 5000] * 5000
            assert int(first[: len(first) // 5000]) - int(second[: len(second) // 5000]) in (0, 1)
    assert len(os.listdir("/proc/self/fd")) == fds


def test_a_plain_volume_in_use_says_that_its_snapshot_is_not_atomic(volumes: Volumes, snapshots: Snapshots) -> None:
    volumes.create("data")
    write(volumes, "data", "file", "text")
    assert snapshots.take("data", "busy", lambda: ["writer"]).atomic is False
    assert snapshots.clone("data", "copy", writers=lambda: ["writer"])[1] is False
    assert snapshots.clone("data", "later", "busy")[1] is False
    assert read(volumes, "later") == {"file": "text"}


def test_everything_about_files_is_kept(volumes: Volumes, snapshots: Snapshots) -> None:
    folder = Path(volumes.create("data").mountpoint)
    (folder / "sub").mkdir()
    os.chmod(folder / "sub", 0o2750)
    (folder / "sub" / "file").write_bytes(b"x" * 5000)
    os.chown(folder / "sub" / "file", 1000, 2000)
    os.chmod(folder / "sub" / "file", 0o4751)
    for name in ("user.colour", "trusted.overlay.opaque"):
        os.setxattr(folder / "sub" / "file", name, b"y")
    os.link(folder / "sub" / "file", folder / "twin")
    os.symlink("/etc/passwd", folder / "link")
    os.mkfifo(folder / "pipe")
    os.chown(folder, 33, 34)
    os.chmod(folder, 0o1770)
    copy = Path(snapshots.clone("data", "copy")[0].mountpoint)
    info = (copy / "sub" / "file").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777, info.st_nlink) == (1000, 2000, 0o4751, 2)
    assert sorted(os.listxattr(copy / "sub" / "file")) == ["trusted.overlay.opaque", "user.colour"]
    assert os.readlink(copy / "link") == "/etc/passwd"
    assert (copy / "pipe").is_fifo()
    assert (copy.stat().st_uid, copy.stat().st_gid, copy.stat().st_mode & 0o7777) == (33, 34, 0o1770)
    assert (copy / "sub").stat().st_mode & 0o7777 == 0o2750


def test_snapshots_keep_a_volume(volumes: Volumes, snapshots: Snapshots) -> None:
    volumes.create("data")
    snapshots.take("data", "monday")
    with pytest.raises(Conflict, match=r"remove data: volume has snapshots - \[monday\]"):
        volumes.remove("data")
    assert volumes.prune(lambda _: [], lambda _: True) == ([], 0)
    volumes.rename("data", "other")
    assert [s.ref for s in snapshots.list()] == ["other@monday"]
    volumes.remove("other", force=True)
    assert volumes.list() == []


def test_the_time_is_the_name_of_one_that_has_none(volumes: Volumes, snapshots: Snapshots) -> None:
    volumes.create("data")
    names = [snapshots.take("data").name for _ in range(3)]
    assert names == sorted(set(names))
    with pytest.raises(Conflict, match="exists"):
        snapshots.take("data", names[0])
    for bad in ("../up", "a/b", ".hidden", "x\n"):
        with pytest.raises(Invalid):
            snapshots.take("data", bad)
        with pytest.raises(NotFound):
            snapshots.remove("data", bad)


def test_data_that_is_elsewhere_is_not_ours_to_copy(volumes: Volumes, snapshots: Snapshots) -> None:
    volumes.create("server", options={"type": "nfs", "o": "addr=127.0.0.1", "device": ":/x"})
    with pytest.raises(Unsupported, match="the data of volume server is not bothy's"):
        snapshots.take("server")
    with pytest.raises(Unsupported):
        snapshots.clone("server", "mine")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", tmp_path], check=True)
    try:
        volumes = Volumes(Paths(tmp_path / "root", tmp_path / "run"))
        snapshots = Snapshots(volumes)
        Path(volumes.create("data").mountpoint, "file").write_bytes(b"x" * 3 * MIB)
        with pytest.raises(OSError, match="No space"):
            snapshots.take("data", "monday")
        with pytest.raises(OSError, match="No space"):
            snapshots.clone("data", "copy")
        assert snapshots.list() == []
        assert [p.name for p in (tmp_path / "root" / "volumes").iterdir()] == ["data"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Path]:
    """A disk whose file system shares blocks between files."""
    if not shutil.which("mkfs.btrfs"):
        pytest.fail("these tests need btrfs-progs")
    image, folder = tmp_path / "btrfs", tmp_path / "sharing"
    with image.open("wb") as file:
        file.truncate(512 * MIB)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    yield folder
    rest(folder)
    subprocess.run(["umount", folder], check=True)


@KINDS
def test_copies_share_blocks_where_the_disk_can(sharing: Path, kind: dict[str, str]) -> None:
    volumes = Volumes(Paths(sharing / "root", sharing / "run"))
    snapshots = Snapshots(volumes)
    volumes.create("data", options={"size": "200m"} if kind else {})
    volume = volumes.get("data")
    with volumes.mounts.held(volume):
        Path(volume.mountpoint, "file").write_bytes(os.urandom(100 * MIB))
    os.sync()
    before = shutil.disk_usage(sharing).free
    for number in range(20):  # 2 GB on a disk of 512 MB
        snapshots.take("data", f"s{number}")
    snapshots.clone("data", "copy")
    os.sync()
    assert before - shutil.disk_usage(sharing).free < 40 * MIB
    copy = volumes.get("copy")
    with volumes.mounts.held(volume), volumes.mounts.held(copy):
        assert Path(copy.mountpoint, "file").read_bytes() == Path(volume.mountpoint, "file").read_bytes()
