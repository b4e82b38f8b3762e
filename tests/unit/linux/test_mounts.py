"""Mount options as data, and places inside a root that were made to lead out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.linux import mounts
from bothy.linux import syscalls as sc


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_options_become_flags_and_data() -> None:
    options = mounts.parse_options(["nosuid", "ro", "noexec", "size=64m", "mode=1777"])
    assert options.flags == sc.MS_NOSUID | sc.MS_RDONLY | sc.MS_NOEXEC
    assert options.data == ["size=64m", "mode=1777"]
    assert options.attr_set == sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOEXEC
    assert options.attr_clr == 0


def test_the_last_of_contradicting_options_counts() -> None:
    assert mounts.parse_options(["ro", "rw"]).flags & sc.MS_RDONLY == 0
    assert mounts.parse_options(["ro", "rw"]).attr_clr == sc.MOUNT_ATTR_RDONLY
    assert mounts.parse_options(["rw", "ro"]).attr_set == sc.MOUNT_ATTR_RDONLY


def test_access_time_modes_replace_each_other() -> None:
    options = mounts.parse_options(["noatime"])
    assert (options.attr_set, options.attr_clr) == (sc.MOUNT_ATTR_NOATIME, sc.MOUNT_ATTR__ATIME)
    assert mounts.parse_options(["relatime"]).attr_clr == sc.MOUNT_ATTR__ATIME


@pytest.mark.parametrize(("word", "flag"), [("rslave", sc.MS_SLAVE | sc.MS_REC), ("private", sc.MS_PRIVATE)])
def test_propagation(word: str, flag: int) -> None:
    assert mounts.parse_options(["rbind", word]).propagation == flag


def test_overlay_data_escapes_what_would_split_it() -> None:
    data = mounts.overlay_data(["/a:b", "/c,d", "/e\\f"], "/u,v", "/w:x")
    assert data == "lowerdir=/a\\:b:/c\\,d:/e\\\\f,upperdir=/u\\,v,workdir=/w:x"


def test_folders_are_made_with_their_parents(root: int, tmp_path: Path) -> None:
    fd = mounts.make_folder(root, "/a/b/../c/./d")
    assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "root/a/c/d")
    os.close(fd)


@pytest.mark.parametrize("target", ["/../../outside", "../../outside", "/outside", "../outside/../../outside"])
def test_links_that_climb_stay_inside(root: int, tmp_path: Path, target: str) -> None:
    (tmp_path / "root/link").symlink_to(target)
    fd = mounts.make_folder(root, "/link/new")
    assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "root/outside/new")
    os.close(fd)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_is_made_at_the_end_of_a_dangling_link_inside(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir()
    (tmp_path / "root/etc/resolv.conf").symlink_to(tmp_path / "outside/resolv.conf")
    (tmp_path / "root" / str(tmp_path)[1:] / "outside").mkdir(parents=True)
    os.close(mounts.make_file(root, "/etc/resolv.conf"))
    assert list((tmp_path / "outside").iterdir()) == []
    assert (tmp_path / "root" / str(tmp_path)[1:] / "outside/resolv.conf").is_file()


def test_links_in_a_circle_end(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/one").symlink_to("two")
    (tmp_path / "root/two").symlink_to("one")
    with pytest.raises(OSError, match="symbolic links"):
        mounts.make_folder(root, "/one/x")


def test_a_file_where_a_folder_should_be(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/file").touch()
    with pytest.raises(NotADirectoryError):
        mounts.make_folder(root, "/file/below")


def test_magic_links_are_refused(root: int, tmp_path: Path) -> None:
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError):
            os.close(mounts.open_in_root(proc, "/self/root/etc/passwd"))
    finally:
        os.close(proc)


def test_no_descriptors_are_left(root: int, tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    (tmp_path / "root/file").touch()
    for path in ("/file/a", "/file/b/c"):
        with pytest.raises(NotADirectoryError):
            mounts.make_folder(root, path)
    os.close(mounts.make_folder(root, "/x/y/z"))
    os.close(mounts.make_file(root, "/x/y/z/file"))
    assert sorted(os.listdir("/proc/self/fd")) == before
