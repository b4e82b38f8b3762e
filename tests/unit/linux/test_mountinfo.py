"""The mount table, read."""

from __future__ import annotations

import pytest

from bothy.linux import mountinfo

TABLE = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:25 / /mnt/with\040space rw shared:7 - tmpfs none rw
31 22 0:26 /sub /mnt/slave rw master:7 - tmpfs none rw
32 31 7:0 / /mnt/slave/both rw shared:9 master:7 - ext4 /dev/loop0 rw,discard
"""


def test_lines_are_read() -> None:
    root, spaced, slave, both = mountinfo.parse(TABLE)
    assert root == mountinfo.Mounted("/", "ext4", "/dev/vda", shared=False, slave=False)
    assert (spaced.point, spaced.shared, spaced.slave) == ("/mnt/with space", True, False)
    assert (slave.shared, slave.slave) == (False, True)
    assert (both.shared, both.slave, both.source) == (True, True, "/dev/loop0")


@pytest.mark.parametrize(
    ("path", "point"),
    [("/", "/"), ("/mnt", "/"), ("/mnt/slave", "/mnt/slave"), ("/mnt/slaves", "/"), ("/mnt/slave/both/x", "/mnt/slave/both")],
)
def test_who_holds_a_path(path: str, point: str) -> None:
    assert mountinfo.holding(path, mountinfo.parse(TABLE)).point == point


def test_an_empty_table_holds_nothing() -> None:
    with pytest.raises(LookupError):
        mountinfo.holding("/x", [])
