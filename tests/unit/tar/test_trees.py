"""Trees to archives and back; archives that mean harm, unpacked below a folder of ours."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from bothy.cli.cp import Below
from bothy.engine.trees import delete
from bothy.errors import StageError
from bothy.tar.headers import Damaged
from bothy.tar.pack import MAX_DEPTH, TRAILER, Archiver, Piece
from bothy.tar.stream import Chunks
from bothy.tar.unpack import Extractor, Owners
from tests.support.archives import entry, tar


def packed(folder: Path, name: str, shown: str, **options: tuple[int, int]) -> bytes:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        out = b""
        for part in Archiver(**options).tree(fd, name, shown.encode()):
            out += os.pread(part.fd, part.size, part.at) if isinstance(part, Piece) else part
        return out + TRAILER
    finally:
        os.close(fd)


def unpack(target: Path, archive: bytes | Iterable[bytes], **options: object) -> None:
    pieces = [archive] if isinstance(archive, bytes) else archive
    Extractor(Chunks(pieces), Below(str(target)), **{"owner": Owners.OURS, **options}).run()  # type: ignore[arg-type]


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A folder to unpack in, and one beside it that is nobody's business."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("old")
    return target, outside


def test_there_and_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub/file").write_bytes(bytes(range(256)) * 5000)
    (source / "sub/file").chmod(0o604)
    os.link(source / "sub/file", source / "hard")
    (source / "link").symlink_to("sub/nowhere")
    os.mkfifo(source / "pipe")
    os.utime(source / "sub", (1_000_000_000, 1_000_000_000))
    archive = packed(tmp_path, "source", "copy")
    unpack(tmp_path, [archive[at : at + 700] for at in range(0, len(archive), 700)])
    copy = tmp_path / "copy"
    assert (copy / "sub/file").read_bytes() == (source / "sub/file").read_bytes()
    assert (copy / "hard").stat().st_ino == (copy / "sub/file").stat().st_ino
    assert (copy / "sub/file").stat().st_mode & 0o777 == 0o604
    assert (copy / "link").readlink() == Path("sub/nowhere")
    assert (copy / "pipe").is_fifo()
    assert (copy / "sub/empty").is_dir()
    assert (copy / "sub").stat().st_mtime == 1_000_000_000


def test_names_of_a_folder_are_dockers(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").touch()
    for shown, wanted in (("d", ["d", "d/x"]), (".", [".", "./x"]), ("/", ["", "/x"])):
        with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, "d", shown))) as found:
            assert found.getnames() == wanted


def test_owners(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, "x", "x", owner=(7, 8)))) as found:
        assert [(e.uid, e.gid) for e in found.getmembers()] == [(7, 8)]


@pytest.mark.parametrize(
    "archive",
    [
        tar(("../climbed", b"x")),
        tar(("a/../../climbed", b"x")),
        tar(entry("out", tarfile.SYMTYPE, "OUTSIDE"), ("out/secret", b"new")),
        tar(entry("out", tarfile.SYMTYPE, "../outside"), ("out/more", b"new")),
        tar(entry("a", tarfile.DIRTYPE), entry("a/out", tarfile.SYMTYPE, "../../outside"), entry("a/out/deep", tarfile.DIRTYPE)),
        tar(entry("hard", tarfile.LNKTYPE, "../outside/secret")),
        tar(entry("hard", tarfile.LNKTYPE, "OUTSIDE/secret")),
        tar(entry("out", tarfile.SYMTYPE, "../outside"), entry("hard", tarfile.LNKTYPE, "out/secret")),
        tar(("", b"x"))[:700],
        b"no archive at all" * 100,
    ],
)
def test_archives_that_mean_harm(places: tuple[Path, Path], archive: bytes) -> None:
    target, outside = places
    named = str(outside).encode()
    archive = archive.replace(b"OUTSIDE" + bytes(len(named) - 7), named) if b"OUTSIDE" in archive and len(named) < 90 else archive
    with pytest.raises(Damaged):
        unpack(target, archive)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "old"
    assert sorted(path.name for path in target.parent.iterdir()) == ["outside", "target"]


def test_a_link_is_replaced_not_followed(places: tuple[Path, Path]) -> None:
    target, outside = places
    (target / "x").symlink_to(outside / "secret")
    (target / "y").symlink_to(outside)
    unpack(target, tar(("x", b"mine"), entry("y", tarfile.DIRTYPE)))
    assert ((target / "x").read_text(), (target / "x").is_symlink()) == ("mine", False)
    assert ((target / "y").is_dir(), (target / "y").is_symlink()) == (True, False)
    assert (outside / "secret").read_text() == "old"


def test_rights_are_left_out(places: tuple[Path, Path]) -> None:
    target, _ = places
    suid = entry("suid", tarfile.REGTYPE, mode=0o6755)
    device = entry("dev", tarfile.CHRTYPE)
    unpack(target, tar(suid, device, entry("d", tarfile.DIRTYPE, mode=0o3777)))
    assert stat.S_IMODE((target / "suid").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o1777
    assert not (target / "dev").exists()


def test_what_takes_whose_place(places: tuple[Path, Path]) -> None:
    target, _ = places
    (target / "folder/below").mkdir(parents=True)
    (target / "folder/kept").touch()
    (target / "file").write_text("old")
    unpack(target, tar(entry("folder", tarfile.DIRTYPE, mode=0o700), ("folder/new", b"1")), strict=True)
    assert sorted(os.listdir(target / "folder")) == ["below", "kept", "new"]
    for archive in (tar(("folder", b"x")), tar(entry("file", tarfile.DIRTYPE))):
        with pytest.raises(StageError, match="cannot overwrite"):
            unpack(target, archive, strict=True)
    unpack(target, tar(("folder", b"x"), entry("file", tarfile.DIRTYPE)))
    assert ((target / "folder").read_bytes(), (target / "file").is_dir()) == (b"x", True)


@pytest.mark.parametrize(
    ("renamed", "names", "wanted"),
    [
        ((b"a", b"b"), ["a/x", "a"], ["b/x"]),
        ((b"", b"new"), ["./x", "y"], ["new/x", "new/y"]),
        ((b"a", b"b"), ["other/a"], ["other/a"]),
    ],
)
def test_renaming(tmp_path: Path, renamed: tuple[bytes, bytes], names: list[str], wanted: list[str]) -> None:
    files = [(name, b"1") for name in names if "/" in name or name == "y"]
    unpack(tmp_path, tar(*files), renamed=renamed)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == wanted


def test_too_deep_a_tree_is_refused(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 5):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        with pytest.raises(StageError, match="too deeply"):
            packed(tmp_path, "d", "d")
    finally:
        delete(str(tmp_path / "d"))
