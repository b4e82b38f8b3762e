"""The filter is tried by a small interpreter of BPF: what would the kernel decide?"""

from __future__ import annotations

import os
import struct

import pytest

from bothy.machines import guard

ALLOW, ASK, REFUSE, KILL = 0x7FFF0000, 0x7FC00000, 0x00050000, 0x80000000
X86_64 = 0xC000003E


def decide(number: int, *arguments: int, arch: int = X86_64) -> int:
    data = struct.pack("=IIQ6Q", number, arch, 0, *(arguments + (0,) * 6)[:6])
    code, at, loaded = guard.program(), 0, 0
    while True:
        kind, true, false, value = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        if kind == 0x06:
            return int(value)
        if kind == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif kind == 0x54:
            loaded &= value
        else:
            test = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[kind]
            at += true if test else false


@pytest.mark.parametrize(
    ("number", "arguments", "decision"),
    [
        (0, (), ALLOW),  # read
        (16, (), ALLOW),  # ioctl
        (59, (), ALLOW),  # execve: by which QEMU itself is started
        (257, (0, 0, os.O_RDONLY | os.O_CLOEXEC), ALLOW),  # openat
        (257, (0, 0, os.O_WRONLY), ALLOW),
        (257, (0, 0, os.O_RDWR | os.O_CLOEXEC), ASK),
        (285, (7, 3), ASK),  # fallocate
        (56, (0x3D0F00,), ALLOW),  # clone of a thread
        (56, (17,), REFUSE | 1),  # fork by clone
        (57, (), REFUSE | 1),  # fork
        (435, (), REFUSE | 38),  # clone3
        (105, (), REFUSE | 1),  # setuid
        (165, (), REFUSE | 1),  # mount
        (101, (), REFUSE | 1),  # ptrace
        (321, (), REFUSE | 1),  # bpf
        (0x40000000 + 257, (0, 0, 2), REFUSE | 38),  # x32
    ],
)
def test_decisions(number: int, arguments: tuple[int, ...], decision: int) -> None:
    assert decide(number, *arguments) == decision


def test_another_architecture_is_the_end() -> None:
    assert decide(0, arch=0x40000003) == KILL


def test_the_filter_is_not_too_long() -> None:
    assert len(guard.program()) // 8 < 4096
