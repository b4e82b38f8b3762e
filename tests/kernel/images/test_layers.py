"""Layers on a real file system: everything a tar can say is there afterwards as it was said."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from bothy.errors import Invalid
from tests.kernel.images.conftest import entry, file, hardlink, symlink


def tree(store, image) -> Path:
    (folder,) = store.layers(image)
    return folder


def test_metadata_of_every_kind_of_file(store, tars):
    image = store.import_rootfs(
        tars(
            entry("./", mode=0o751, mtime=7),
            entry("dir", mode=0o1770, uid=5, gid=6, mtime=1000.5),
            file("dir/file", b"hello", mode=0o4755, uid=1000, gid=2000, mtime=-5),
            file("none", mode=0o000),
            symlink("link", "dir/file", uid=3, gid=4, mtime=99),
            hardlink("hard", "dir/file"),
            entry("fifo", tarfile.FIFOTYPE, mode=0o620, gid=5),
            entry("char", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("block", tarfile.BLKTYPE, devmajor=259, devminor=300, mode=0o660),
        )
    )
    root = tree(store, image)
    status = os.lstat(root / "dir/file")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns) == (0o4755, 1000, 2000, -5 * 10**9)
    assert (root / "dir/file").read_bytes() == b"hello"
    assert os.lstat(root / "hard").st_ino == status.st_ino
    assert status.st_nlink == 2
    folder = os.lstat(root / "dir")
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid, folder.st_gid, folder.st_mtime_ns) == (0o1770, 5, 6, 1_000_500_000_000)
    assert (stat.S_IMODE(os.lstat(root).st_mode), os.lstat(root).st_mtime) == (0o751, 7)
    assert stat.S_IMODE(os.lstat(root / "none").st_mode) == 0
    link = os.lstat(root / "link")
    assert (os.readlink(root / "link"), link.st_uid, link.st_gid, link.st_mtime) == ("dir/file", 3, 4, 99)
    assert stat.S_ISFIFO(os.lstat(root / "fifo").st_mode)
    assert os.lstat(root / "char").st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK(os.lstat(root / "block").st_mode)
    assert os.lstat(root / "block").st_rdev == os.makedev(259, 300)
    assert image.size == 5


def test_extended_attributes_and_those_that_are_not_taken(store, tars):
    capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    attributes = {
        "SCHILY.xattr.user.colour": "green",
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.trusted.other": "y",
    }
    with_xattrs, data = file("ping", b"x", mode=0o755, uid=1)
    with_xattrs.pax_headers = attributes
    folder = entry("dir")
    folder.pax_headers = attributes
    root = tree(store, store.import_rootfs(tars((with_xattrs, data), folder, symlink("link", "ping"))))
    assert os.getxattr(root / "ping", "security.capability") == capability
    for name in ("ping", "dir"):
        assert os.getxattr(root / name, "user.colour") == b"green"
        assert not [attribute for attribute in os.listxattr(root / name) if "overlay" in attribute or "trusted" in attribute]


def test_whiteouts_and_opaque_folders(store, tars):
    image = store.import_rootfs(
        tars(
            entry("dir"), file("dir/.wh.gone"), file("dir/.wh..wh..opq"), file(".wh.top"), file(".wh..wh.plnk"), file(".wh..wh.aufs"),
            file("kept", b"k"), file(".wh.kept"),
            file(".wh.again"), entry("again"), file("again/new", b"n"),
            file(".wh.later"), file("later", b"l"),
            file(".wh.parent"), file("parent/child", b"c"),
        )
    )  # fmt: skip
    root = tree(store, image)
    for name in ("dir/gone", "top"):
        status = os.lstat(root / name)
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    assert os.getxattr(root / "dir", "trusted.overlay.opaque") == b"y"
    assert (root / "kept").read_bytes() == b"k"
    assert (root / "again/new").read_bytes() == b"n"
    assert os.getxattr(root / "again", "trusted.overlay.opaque") == b"y"
    assert (root / "later").read_bytes() == b"l"
    assert (root / "parent/child").read_bytes() == b"c"
    assert os.getxattr(root / "parent", "trusted.overlay.opaque") == b"y"
    assert not [name for name in os.listdir(root) if name.startswith(".wh.")]


def test_the_same_name_several_times_with_other_types(store, tars, tmp_path):
    image = store.import_rootfs(
        tars(
            file("a", b"first"), file("a", b"second"),
            entry("b"), file("b/c", b"deep"), file("b", b"now a file"),
            file("c", b"x"), entry("c"), file("c/d", b"in c"),
            symlink("d", "/etc/passwd"), file("d", b"not followed"),
            entry("e", tarfile.CHRTYPE, devmajor=1, devminor=1), file("e", b"not memory"),
            entry("f", tarfile.FIFOTYPE), file("f", b"no pipe"),
            entry("g", mode=0o700), file("g/x", b"x"), entry("g", mode=0o755),
        ), "x"
    )  # fmt: skip
    root = tree(store, image)
    texts = {
        "a": b"second",
        "b": b"now a file",
        "c/d": b"in c",
        "d": b"not followed",
        "e": b"not memory",
        "f": b"no pipe",
        "g/x": b"x",
    }
    assert {name: (root / name).read_bytes() for name in texts} == texts
    assert stat.S_IMODE(os.lstat(root / "g").st_mode) == 0o755
    store.save(["x"], tmp_path / "out.tar")  # the archive has the first contents too, which the folder has not
    assert b"first" in (tmp_path / "out.tar").read_bytes()


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "v7"])
def test_what_gnu_tar_writes(store, tmp_path, form):
    source = tmp_path / "source"
    deep = source / ("d" * 80) / ("e" * 80)
    deep = deep / ("f" * 80) if form in ("gnu", "posix") else source / ("d" * 40)
    deep.mkdir(parents=True)
    if form in ("gnu", "posix"):
        (source / "long link").symlink_to("x" * 150)
    (deep / "file").write_bytes(b"deep")
    (source / "ünïcödé").write_bytes(b"u")
    subprocess.run(["tar", "-C", source, f"--format={form}", "-cf", tmp_path / "t.tar", "."], check=True)
    root = tree(store, store.import_rootfs(tmp_path / "t.tar"))
    done = subprocess.run(["diff", "-r", "--no-dereference", source, root], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *[["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")]]
)
def test_sparse_files(store, tmp_path, options):
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as out:
        for piece in range(30):
            out.seek(piece * 1_000_000)
            out.write(b"data %d" % piece)
        out.truncate(40_000_000)
    with (source / "hole").open("wb") as out:
        out.truncate(5_000_000)
    subprocess.run(["tar", "-C", source, "-S", *options, "-cf", tmp_path / "t.tar", "."], check=True)
    image = store.import_rootfs(tmp_path / "t.tar", "sparse")
    root = tree(store, image)
    assert (root / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (root / "hole").stat().st_size == 5_000_000
    assert (root / "sparse").stat().st_blocks * 512 < 1_000_000
    assert image.size == 45_000_000
    store.save(["sparse"], tmp_path / "out.tar")
    assert store.load(tmp_path / "out.tar") == ["sparse:latest"]


@pytest.mark.parametrize("compress", [["cat"], ["gzip", "-1"], ["zstd", "-q"], ["xz", "-0"], ["bzip2"]])
def test_compressed_root_file_systems(store, tars, tmp_path, compress):
    plain = tars(file("a", os.urandom(3_000_000)), file("b", b"b" * 5_000_000))
    packed = tmp_path / "packed"
    with plain.open("rb") as source, packed.open("wb") as out:
        subprocess.run(compress, stdin=source, stdout=out, check=True)
    root = tree(store, store.import_rootfs(packed))
    assert (root / "b").read_bytes() == b"b" * 5_000_000


def test_gzip_members_one_after_the_other(store, tars, tmp_path):
    data = tars(file("a", b"a" * 100_000)).read_bytes()
    packed = tmp_path / "packed"
    for part in (data[:50_000], data[50_000:]):
        done = subprocess.run(["gzip"], input=part, capture_output=True, check=True)
        with packed.open("ab") as out:
            out.write(done.stdout)
    assert (tree(store, store.import_rootfs(packed)) / "a").read_bytes() == b"a" * 100_000


def test_implied_folders_and_hard_links_to_symlinks(store, tars):
    root = tree(store, store.import_rootfs(tars(file("x/y/z", b"z"), symlink("s", "nowhere"), hardlink("h", "s"))))
    assert stat.S_IMODE(os.lstat(root / "x/y").st_mode) == 0o755
    assert os.readlink(root / "h") == "nowhere"
    assert os.lstat(root / "h").st_nlink == 2


def test_a_layer_is_unpacked_once(store, tars):
    tar = tars(file("a", b"a"))
    one, two = store.import_rootfs(tar, "one"), store.import_rootfs(tar, "two", ["ENV A=1"])
    assert one.id != two.id
    assert store.layers(one) == store.layers(two)
    store.remove("one")
    assert (tree(store, two) / "a").exists()


@pytest.mark.parametrize("data", [b"", bytes(1024)])
def test_an_empty_archive_is_no_root_file_system(store, tmp_path, data):
    (tmp_path / "empty.tar").write_bytes(data)
    with pytest.raises(Invalid, match="the archive is empty"):
        store.import_rootfs(tmp_path / "empty.tar")
