"""Copying what an image has into a new volume: real layers, real overlay, as root."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bothy.errors import Invalid
from bothy.paths import Paths
from bothy.volumes.store import Volumes


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Two layers, topmost first."""
    found = [tmp_path / "store" / "top", tmp_path / "store" / "bottom"]
    for layer in found:
        (layer / "srv").mkdir(parents=True)
    return found


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    service = Volumes(Paths(tmp_path / "root", tmp_path / "run"))
    service.create("data")
    return service


def data(volumes: Volumes) -> Path:
    return Path(volumes.get("data").mountpoint)


def test_layers_are_merged_and_whiteouts_hide(volumes: Volumes, layers: list[Path]) -> None:
    top, bottom = layers
    (bottom / "srv" / "old").write_text("old")
    (bottom / "srv" / "gone").write_text("gone")
    (top / "srv" / "old").write_text("new")
    os.mknod(top / "srv" / "gone", stat.S_IFCHR, 0)
    mounts = Path("/proc/self/mountinfo").read_text()
    assert volumes.copy_up("data", layers, "/srv") is True
    assert {p.name: p.read_text() for p in data(volumes).iterdir()} == {"old": "new"}
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_attributes_are_kept(volumes: Volumes, layers: list[Path]) -> None:
    srv = layers[0] / "srv"
    (srv / "sub").mkdir()
    (srv / "sub" / "file").write_bytes(b"x" * 5000)
    os.setxattr(srv / "sub" / "file", "user.colour", b"blue")
    os.setxattr(srv / "sub" / "file", "trusted.secret", b"no")
    os.chown(srv / "sub" / "file", 1000, 2000)
    os.chmod(srv / "sub" / "file", 0o4751)
    os.link(srv / "sub" / "file", srv / "twin")
    os.symlink("/etc/passwd", srv / "link")
    os.mkfifo(srv / "pipe", 0o640)
    with open(srv / "sparse", "wb") as sparse:
        sparse.truncate(1 << 24)
        sparse.seek(1 << 20)
        sparse.write(b"island")
    os.utime(srv / "sub" / "file", ns=(1, 1_234_567_890))
    os.chown(srv, 33, 33)
    os.chmod(srv, 0o1777)
    assert volumes.copy_up("data", layers, "srv/")
    made = data(volumes)
    info = (made / "sub" / "file").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode), info.st_mtime_ns, info.st_nlink) == (
        1000,
        2000,
        0o4751,
        1_234_567_890,
        2,
    )
    assert (made / "twin").stat().st_ino == info.st_ino
    assert os.listxattr(made / "sub" / "file") == ["user.colour"]
    assert os.readlink(made / "link") == "/etc/passwd"
    assert stat.S_ISFIFO((made / "pipe").lstat().st_mode)
    assert ((made / "sparse").stat().st_size, (made / "sparse").stat().st_blocks * 512 < 1 << 20) == (1 << 24, True)
    assert (made / "sparse").read_bytes()[1 << 20 : (1 << 20) + 6] == b"island"
    assert (made.stat().st_uid, stat.S_IMODE(made.stat().st_mode)) == (33, 0o1777)


def test_links_on_the_way_stay_inside_the_image(volumes: Volumes, layers: list[Path], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (layers[0] / "escape").symlink_to(outside)
    (layers[0] / "climb").symlink_to("../../../outside")
    (layers[0] / "inside").symlink_to("/srv")
    (layers[1] / "srv" / "file").write_text("mine")
    assert volumes.copy_up("data", layers, "/escape") is False
    assert volumes.copy_up("data", layers, "/climb") is False
    assert volumes.copy_up("data", layers, "/escape/../../outside") is False
    assert list(data(volumes).iterdir()) == []
    assert volumes.copy_up("data", layers, "/inside") is True
    assert (data(volumes) / "file").read_text() == "mine"


def test_nothing_is_copied_over_what_is_there(volumes: Volumes, layers: list[Path]) -> None:
    (layers[0] / "srv" / "file").write_text("image")
    (data(volumes) / "mine").write_text("mine")
    assert volumes.copy_up("data", layers, "/srv") is False
    assert [p.name for p in data(volumes).iterdir()] == ["mine"]


def test_an_image_without_that_folder_is_no_failure(volumes: Volumes, layers: list[Path]) -> None:
    (layers[0] / "file").write_text("")
    assert volumes.copy_up("data", layers, "/nowhere") is False
    assert volumes.copy_up("data", layers, "/file") is False
    assert volumes.copy_up("data", layers[:1], "/srv") is True


def test_a_failure_leaves_the_volume_empty(volumes: Volumes, layers: list[Path], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for number in range(20):
        (layers[0] / "srv" / f"file{number}").write_bytes(b"x" * 65536)
    from bothy.linux import syscalls
    from bothy.volumes import copyup

    syscalls.mount("tmpfs", str(small), "tmpfs", 0, "size=512k")
    try:
        target = os.open(small, os.O_RDONLY)
        with pytest.raises(OSError, match="No space left"):
            copyup.copy_up([str(layer) for layer in layers], "/srv", target)
        os.close(target)
        assert list(small.iterdir()) == []
    finally:
        syscalls.umount2(str(small))


def test_many_layers(volumes: Volumes, tmp_path: Path) -> None:
    layers = [tmp_path / "store" / f"{number:064x}" for number in range(100)]
    for number, layer in enumerate(layers):
        (layer / "srv").mkdir(parents=True)
        (layer / "srv" / str(number)).touch()
    fds = len(os.listdir("/proc/self/fd"))
    assert volumes.copy_up("data", layers, "/srv")
    assert len(list(data(volumes).iterdir())) == 100
    assert len(os.listdir("/proc/self/fd")) == fds


def test_into_a_folder_of_the_volume(volumes: Volumes, layers: list[Path]) -> None:
    (layers[0] / "srv" / "file").write_text("image")
    (data(volumes) / "sub").mkdir()
    (data(volumes) / "file").write_text("mine")
    assert volumes.copy_up("data", layers, "/srv", "sub") is True
    assert (data(volumes) / "sub" / "file").read_text() == "image"
    assert volumes.copy_up("data", layers, "/srv", "file") is False
    with pytest.raises(Invalid, match=r"cannot access path .*/_data/nowhere: no such file or directory"):
        volumes.copy_up("data", layers, "/srv", "nowhere")


def test_never_into_a_folder_outside(volumes: Volumes, layers: list[Path], tmp_path: Path) -> None:
    (layers[0] / "srv" / "file").write_text("image")
    (tmp_path / "outside").mkdir()
    (data(volumes) / "escape").symlink_to(tmp_path / "outside")
    (data(volumes) / "climb").symlink_to("../../../../outside")
    for subpath in ("escape", "climb", "../outside"):
        with pytest.raises(Invalid, match="path escapes from the volume"):
            volumes.copy_up("data", layers, "/srv", subpath)
    assert list((tmp_path / "outside").iterdir()) == []
