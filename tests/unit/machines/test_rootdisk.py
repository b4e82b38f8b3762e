from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from bothy.machines import mkfs, rootdisk


def make(folder: Path, *, files: int, time: int = rootdisk.TIME) -> Path:
    staging = folder / "staging"
    staging.mkdir(parents=True)
    tree = Path(rootdisk.arrange(str(staging)))
    for number in range(files):
        (tree / f"file{number}").write_bytes(os.urandom(100 * number))
    os.utime(staging, (time, time))
    disk = folder / "disk"
    subprocess.run(["mkfs.erofs", "--quiet", "-U", str(uuid.uuid4()), disk, staging], check=True, capture_output=True)
    return disk


def fingerprint(disk: Path) -> str:
    with disk.open("rb") as file:
        return rootdisk.fingerprint(file.fileno())


def test_all_disks_of_the_layout_have_one_fingerprint(tmp_path: Path) -> None:
    mkfs.make_empty_image(str(tmp_path / "empty"))
    expected = fingerprint(tmp_path / "empty")
    assert expected
    for files in (0, 1, 300):
        assert fingerprint(make(tmp_path / str(files), files=files)) == expected


def test_another_root_folder_is_another_fingerprint(tmp_path: Path) -> None:
    one, other = make(tmp_path / "a", files=1), make(tmp_path / "b", files=1, time=77)
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("data", [b"", b"x" * 512, bytes(8192)])
def test_what_is_no_erofs_has_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "disk").write_bytes(data)
    assert fingerprint(tmp_path / "disk") == ""
