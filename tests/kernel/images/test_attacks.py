"""Archives by an attacker: refused or contained, and nothing is left behind."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from bothy.errors import Invalid
from tests.kernel.images.conftest import entry, file, hardlink, symlink

MARK = b"written by an attacker"


@pytest.fixture
def outside(tmp_path):
    """A folder beside the store that must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "victim").write_bytes(b"as it was")
    yield folder
    assert os.listdir(folder) == ["victim"]
    assert (folder / "victim").read_bytes() == b"as it was"
    assert (folder / "victim").stat().st_nlink == 1
    grep = subprocess.run(["grep", "-rlF", MARK.decode(), "/etc", tmp_path / "outside"], capture_output=True, check=False)
    assert grep.stdout == b""


REFUSED = {
    "parent": [file("../escape", MARK)],
    "parent inside": [file("a/../../escape", MARK)],
    "folder above": [entry("..", mode=0o777)],
    "whiteout of the parent": [entry("d"), file("d/.wh...")],
    "whiteout of the folder": [entry("d"), file("d/.wh..")],
    "whiteout of nothing": [file(".wh.")],
    "whiteout above": [file("../.wh.escape")],
    "hard link to the host": [hardlink("shadow", "/etc/shadow")],
    "hard link above": [hardlink("shadow", "../../../../etc/shadow")],
    "hard link to nothing": [hardlink("a", "b")],
    "hard link to a folder": [entry("d"), hardlink("a", "d")],
    "hard link through a symlink": [symlink("etc", "/etc"), hardlink("shadow", "etc/shadow")],
    "hard link to a whiteout": [file(".wh.w"), hardlink("a", "w")],
    "file as a folder": [file("a", b"a"), file("a/b", MARK)],
    "symlink loop as a folder": [symlink("a", "b"), symlink("b", "a"), file("a/x", MARK)],
    "symlink to nowhere as a folder": [symlink("a", "nowhere"), file("a/x", MARK)],
    "unknown type": [entry("a", b"Z")],
    "owner out of range": [entry("a", uid=2**33)],
    "name too long": [file("x" * 300, MARK)],
    "path too long": [file("/".join(["x" * 200] * 30), MARK)],
}


@pytest.mark.parametrize("entries", REFUSED.values(), ids=REFUSED.keys())
def test_refused(store, tars, outside, entries):
    with pytest.raises(Invalid) as raised:
        store.import_rootfs(tars(file("good", b"good"), *entries), "bad")
    assert raised.value.message
    assert store.list() == []


CONTAINED = {
    "absolute name": ([file("/escape", MARK)], "escape"),
    "double slash": ([file("//etc//escape", MARK)], "etc/escape"),
    "write through an absolute symlink": ([symlink("etc", "/etc2"), entry("etc2"), file("etc/escape", MARK)], "etc2/escape"),
    "write through a climbing symlink": ([symlink("up", "../../../.."), file("up/escape", MARK)], "escape"),
    "write through a chain": ([entry("t"), symlink("a", "b"), symlink("b", "/../../t"), file("a/escape", MARK)], "t/escape"),
    "file over a symlink": ([symlink("escape", "/etc/escape"), file("escape", MARK)], "escape"),
    "folder over a symlink": ([symlink("etc", "/"), entry("etc"), file("etc/escape", MARK)], "etc/escape"),
    "symlink swapped under a folder": (
        [entry("d"), file("d/x", b""), symlink("d", "/etc"), entry("etc"), file("d/escape", MARK)], "etc/escape",
    ),
    "hard link then write": ([file("a", b"1"), hardlink("b", "a"), file("b", MARK)], "b"),
    "hard link to a symlink then write": ([symlink("a", "/etc/escape"), hardlink("b", "a"), file("b", MARK)], "b"),
    "proc": ([symlink("p", "/proc/self/root"), entry("proc/self/root"), file("p/escape", MARK)], "proc/self/root/escape"),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "place"), CONTAINED.values(), ids=CONTAINED.keys())
def test_contained(store, tars, outside, entries, place, tmp_path):
    image = store.import_rootfs(tars(*entries), "odd")
    (root,) = store.layers(image)
    assert (root / place).read_bytes() == MARK
    store.save(["odd"], tmp_path / "odd.tar")  # and the tar is the same when it is put together again
    store.remove("odd")
    assert store.load(tmp_path / "odd.tar") == ["odd:latest"]


def test_a_symlink_to_this_very_tests_folder_is_not_followed(store, tars, outside):
    tar = tars(symlink("out", str(outside)), file("out/victim", MARK))
    with pytest.raises(Invalid, match="is not a folder"):
        store.import_rootfs(tar)
    made = tars(
        symlink("out", str(outside)), entry(str(outside)), file("out/victim", MARK), file("out/new", MARK), hardlink("h", "out/new")
    )
    (root,) = store.layers(store.import_rootfs(made))
    assert (root / str(outside).lstrip("/") / "victim").read_bytes() == MARK


def test_a_device_of_the_archive_is_never_opened(store, tars):
    disk = entry("dev/disk", tarfile.BLKTYPE, devmajor=254, devminor=0, mode=0o666)
    (root,) = store.layers(store.import_rootfs(tars(disk, file("dev/disk", b"no disk"))))
    assert (root / "dev/disk").read_bytes() == b"no disk"


def corrupt(data: bytes, kind: str) -> bytes:
    if kind == "truncated in a header":
        return data[:700]
    if kind == "truncated in a file":
        return data[:2000]
    if kind == "wrong checksum":
        return data[:1536] + b"\1" + data[1537:]
    if kind == "no tar":
        return os.urandom(100_000)
    if kind == "text":
        return b"hello\n" * 1000
    if kind == "short":
        return b"x" * 100
    if kind == "truncated gzip":
        return gzip.compress(data)[:-30]
    if kind == "damaged gzip":
        packed = bytearray(gzip.compress(os.urandom(50_000) + data))
        packed[20_000:20_100] = bytes(100)
        return bytes(packed)
    if kind == "gzip of no tar":
        return gzip.compress(b"hello" * 1000)
    assert kind == "damaged zstd"
    return b"\x28\xb5\x2f\xfd" + os.urandom(1000)


KINDS = [
    "truncated in a header", "truncated in a file", "wrong checksum", "no tar", "text", "short", "truncated gzip", "damaged gzip",
    "gzip of no tar", "damaged zstd",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_archives(store, tars, tmp_path, kind):
    good = tars(file("a", b"a" * 600), file("b", b"b" * 5000)).read_bytes()
    bad = tmp_path / "bad"
    bad.write_bytes(corrupt(good, kind))
    with pytest.raises(Invalid) as raised:
        store.import_rootfs(bad, "bad")
    assert "bad" in raised.value.message
    with pytest.raises(Invalid):
        store.load(bad)
    assert store.list() == []


def test_nonsense_in_headers(store, tmp_path):
    def header(**fields) -> bytearray:
        info = tarfile.TarInfo(fields.pop("name", "a"))
        for key, value in fields.items():
            setattr(info, key, value)
        return bytearray(info.tobuf(tarfile.GNU_FORMAT))

    huge_extension = header(type=b"x", size=1 << 40)
    sparse = header(type=b"S", size=512)
    sparse[386:410] = b"%011o\0%011o\0" % (1 << 32, 512)  # the piece is behind the end
    sparse[483:495] = b"%011o\0" % 512
    negative = header()
    negative[124:136] = b"\xff" * 12
    for number, block in enumerate((huge_extension, sparse, negative)):
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        path = tmp_path / f"{number}.tar"
        path.write_bytes(bytes(block) + bytes(2048))
        with pytest.raises(Invalid):
            store.import_rootfs(path)


def test_deep_folders_replaced_by_a_file(store, tars):
    deep = "/".join(["d"] * 1050)
    (root,) = store.layers(store.import_rootfs(tars(file(f"{deep}/x", b"x"), file("d", b"flat"))))
    assert (root / "d").read_bytes() == b"flat"


def test_a_long_chain_of_symlinks(store, tars):
    links = [symlink(f"l{n}", f"l{n + 1}") for n in range(3000)]
    with pytest.raises(Invalid):
        store.import_rootfs(tars(*links, file("l0/x", MARK)))


def test_layers_can_not_be_reached_from_the_worker(store, tars, paths):
    """The root of the process that unpacks is the layer: names of the host mean nothing there."""
    marker = Path(paths.root) / "marker"
    marker.write_bytes(b"m")
    tar = tars(symlink("host", "/"), entry("host/x"), symlink("store", str(paths.images)), file("y", b"y"))
    (root,) = store.layers(store.import_rootfs(tar))
    assert (root / "x").is_dir()
    assert marker.read_bytes() == b"m"
