from __future__ import annotations

import os
from pathlib import Path

import pytest

from bothy.errors import Broken
from bothy.machines import disks, mkfs


def sparse(path: Path, pieces: dict[int, bytes], size: int) -> None:
    with path.open("wb") as file:
        for at, data in pieces.items():
            file.seek(at)
            file.write(data)
        file.truncate(size)


def test_a_copy_has_the_content_and_the_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    sparse(source, {0: b"begin" * 1000, 5 << 20: b"middle"}, 1 << 30)
    disks.copy(str(source), str(target))
    assert target.stat().st_size == 1 << 30
    assert target.stat().st_blocks * 512 < 1 << 20
    with target.open("rb") as file:
        assert file.read(5) == b"begin"
        file.seek(5 << 20)
        assert file.read(7) == b"middle\0"


def test_a_file_of_nothing_but_a_hole(tmp_path: Path) -> None:
    sparse(tmp_path / "a", {}, 1 << 20)
    disks.copy(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == bytes(1 << 20)


def test_what_is_there_stays(tmp_path: Path) -> None:
    sparse(tmp_path / "a", {0: b"new"}, 3)
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        disks.copy(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"old"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    sparse(tmp_path / "a", {0: b"new"}, 3)
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        disks.copy(str(tmp_path / "a"), str(tmp_path / "b"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disks.copy(str(tmp_path / "nosuch"), str(tmp_path / "b"))
    assert os.listdir(tmp_path) == []


def test_a_pristine_disk_is_an_ext4_that_costs_next_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    mkfs.make_pristine(str(path))
    assert path.stat().st_size == disks.SIZE
    assert path.stat().st_blocks * 512 < 2 << 20
    with path.open("rb") as file:
        file.seek(1024 + 56)
        assert file.read(2) == b"\x53\xef"


def test_mkfs_tells_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mkfs, "_EXTENDED", "nosuchoption")
    with pytest.raises(Broken, match="nosuchoption"):
        mkfs.make_pristine(str(tmp_path / "scratch"))
