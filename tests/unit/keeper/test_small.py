"""Exit files, orders, tables of processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bothy.containers.sandbox import Sandbox
from bothy.errors import Invalid
from bothy.keeper import exits, top
from bothy.keeper.birth import Order
from bothy.keeper.model import Exit


def test_exit_is_written_whole_and_read_again(tmp_path: Path) -> None:
    assert exits.read(str(tmp_path)) is None
    value = Exit(137, "2024-05-01T10:00:00.000000001Z", exits.now(), oom=True, error="why")
    exits.write(str(tmp_path), value)
    exits.write(str(tmp_path), value)
    assert os.listdir(tmp_path) == ["exit.json"]
    assert exits.read(str(tmp_path)) == value
    (tmp_path / "exit.json").write_text('{"code": "x"}')
    with pytest.raises(ValueError, match=r"Exit\.code"):
        exits.read(str(tmp_path))


def test_stamp() -> None:
    assert exits.stamp(0) == "1970-01-01T00:00:00.000000000Z"
    assert exits.stamp(1_714_557_600_123_456_789) == "2024-05-01T10:00:00.123456789Z"


@pytest.mark.parametrize("sandbox", [None, Sandbox(7, 10, 11, 12, 13), Sandbox(0, -1, 11, 12, 13), Sandbox(7, 10, -1, 12, 13)])
def test_order_and_back(sandbox: Sandbox | None) -> None:
    base = sandbox.id_base if sandbox else 9
    order, fds = Order.of("/run/é", "private", base, sandbox)
    again = Order.decode(order.encode())
    assert again == order
    assert again.sandbox(fds) == sandbox


def test_table_of_this_process() -> None:
    table = top.table("", [os.getpid(), 2**22 - 1])
    assert table["titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    (row,) = table["processes"]
    assert row[1:3] == [str(os.getpid()), str(os.getppid())]


@pytest.mark.parametrize(
    ("args", "titles"),
    [
        ("aux", ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]),
        ("-o pid,comm", ["PID", "COMMAND"]),
        ("-eo pid=,args=WHAT", ["PID", "WHAT"]),
        ("-opid,ppid", ["PID", "PPID"]),
        ("axo pid,%mem,etime", ["PID", "%MEM", "ELAPSED"]),
    ],
)
def test_columns(args: str, titles: list[str]) -> None:
    assert top.table(args, [os.getpid()])["titles"] == titles


def test_unknown_column_is_refused() -> None:
    with pytest.raises(Invalid, match="nonsense"):
        top.table("-o nonsense", [])


def test_ids_are_those_inside() -> None:
    uid = os.stat(f"/proc/{os.getpid()}").st_uid
    if uid == 0:
        assert top.table("-o user", [os.getpid()])["processes"] == [["root"]]
    else:
        assert top.table("-o uid", [os.getpid()], id_base=uid)["processes"] == [["0"]]
