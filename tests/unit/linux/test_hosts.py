"""Hosts files that change while their workload runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothy.linux.hosts import HostsChange, change


def test_lines_of_ours_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"127.0.0.1\tlocalhost\n10.0.0.2\tweb\n10.0.0.3\tdb abc database\n# mine \xff\n10.0.0.2 web by hand")
    inode = path.stat().st_ino
    change(str(path), HostsChange(add=["10.0.0.9\tdb abc database"], drop_addresses=["10.0.0.2"], drop_names=["db abc database"]))
    assert path.read_bytes() == b"127.0.0.1\tlocalhost\n# mine \xff\n10.0.0.2 web by hand\n10.0.0.9\tdb abc database\n"
    assert path.stat().st_ino == inode
    before = path.read_bytes()
    change(str(path), HostsChange())
    assert path.read_bytes() == before


def test_no_file_and_no_link_is_followed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        change(str(tmp_path / "none"), HostsChange(add=["10.0.0.2\tweb"]))
    (tmp_path / "other").write_text("other\n")
    (tmp_path / "hosts").symlink_to("other")
    with pytest.raises(OSError, match="symbolic"):
        change(str(tmp_path / "hosts"), HostsChange(add=["10.0.0.2\tweb"]))
    assert (tmp_path / "other").read_text() == "other\n"
