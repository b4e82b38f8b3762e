"""Images made from what the host has, and machine disks of images."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile

import pytest

from bothy.errors import Invalid, Unavailable
from tests.kernel.images.conftest import entry, file, hardlink


def test_busybox(store, paths):
    said: list[str] = []
    image = store.bootstrap("busybox", progress=said.append)
    assert said
    assert image.repo_tags == ["busybox:latest"]
    assert image.config.cmd == ["sh"]
    assert image.config.env == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    (root,) = store.layers(image)
    script = "set -e; [ $(id -un) = root ]; ls / | tr '\\n' ' '; echo hello | grep -c hell; /usr/bin/env true; stat -c %a /tmp"
    done = subprocess.run(["/usr/sbin/chroot", root, "/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={})
    assert done.stdout == "bin dev etc home proc root run sys tmp usr var 1\n1777\n"
    assert store.bootstrap("busybox", "mine:1").id == image.id  # the same binary is the same image
    assert store.resolve("busybox").repo_tags == ["busybox:latest", "mine:1"]


def test_debian(store):
    said: list[str] = []
    image = store.bootstrap("debian:bookworm", "base", ["netbase"], said.append)
    assert any("downloading" in line for line in said)
    assert (image.repo_tags, image.config.cmd) == (["base:latest"], ["bash"])
    (root,) = store.layers(image)
    done = subprocess.run(["chroot", root, "dpkg-query", "-W", "netbase"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("netbase")
    assert "debian" in (root / "etc/apt/sources.list").read_text()
    assert os.listdir(root / "dev") == []
    for name in ("etc/resolv.conf", "etc/hostname", "etc/apt/apt.conf.d/99mmdebstrap"):
        assert not os.path.lexists(root / name)
    assert os.listdir(root / "proc") == []


@pytest.mark.parametrize(
    ("source", "include", "error"),
    [
        ("fedora:40", [], Invalid), ("busybox:1", [], Invalid), ("busybox", ["curl"], Invalid), ("debian:-x", [], Invalid),
        ("debian:bookworm", ["--x"], Invalid), ("debian:nosuchsuite", [], Unavailable),
    ],
)  # fmt: skip
def test_what_can_not_be_made(store, source, include, error):
    with pytest.raises(error) as raised:
        store.bootstrap(source, include=include)
    assert source.partition(":")[0] in raised.value.message or include
    assert store.list() == []


def test_a_machine_disk_has_what_the_image_has(store, tars, tmp_path):
    with_xattr, data = file("cap", b"c", mode=0o4755, uid=7, mtime=1000)
    with_xattr.pax_headers = {"SCHILY.xattr.user.colour": "green"}
    first = tars(
        (with_xattr, data), hardlink("hard", "cap"), file("gone", b"1"), entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    ).read_bytes()
    from tests.kernel.images.test_archives import Layout

    (tmp_path / "layout").mkdir()
    layout = Layout(tmp_path / "layout")
    layout.index(layout.image(first, tars(file(".wh.gone"), file("new", b"2")).read_bytes()))
    image = store.resolve(store.load(layout.folder)[0])
    said: list[str] = []
    disk = store.machine_disk(image, said.append)
    assert store.machine_disk(image, said.append) == disk
    assert len(said) == 1
    script = 'mount -t erofs "$1" "$2"; cd "$2/image"; stat -c "%n %a %u %Y %h %F" *; "$3" -c "$4"; cat new'
    show = "import os; print(os.getxattr('cap', 'user.colour').decode())"
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    argv = ["unshare", "--mount", "sh", "-ec", script, "sh", str(disk), str(mountpoint), sys.executable, show]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "cap 4755 7 1000 2 regular file",
        "hard 4755 7 1000 2 regular file",
        "new 644 0 0 1 regular file",
        "null 644 0 0 1 character special file",
        "green",
        "2",
    ]
    assert store.usage().disks == 1
    store.tag(image.id, "again")
    store.remove("again")
    assert not disk.exists()
