"""The device rules of a container as a BPF program, for cgroup v2, which has no device controller.

A rule list is read backwards: the last rule that matches an access decides, as with v1's list. Each becomes a few instructions

    if type, major or minor differ: go to the next
    if the rule allows less than all that is asked for, or refuses nothing of it: go to the next
    return allow

and what none of them matched is refused. The program is given a struct bpf_cgroup_dev_ctx: three u32, access_type
(access << 16 | type), major, minor.
Sources: bpf(2), linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import os
import struct

from bothy.linux import syscalls
from bothy.oci.runtime import DeviceRule

_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_PROG_LOAD, _PROG_ATTACH = 5, 8
_ALLOW_MULTI = 2

# linux/bpf_common.h: opcodes
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_AND_IMM, _RSH_IMM, _MOV_IMM, _MOV_REG = 0x54, 0x74, 0xB7, 0xBC  # 32-bit and, 32-bit shift, 64-bit move, 32-bit move
_JEQ_IMM, _JNE_IMM, _JNE_REG, _EXIT = 0x15, 0x55, 0x5D, 0x95


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, immediate)


def program(rules: list[DeviceRule]) -> bytes:
    """The program, 8 bytes an instruction. r2 is the type, r3 the access asked for, r4 and r5 the numbers."""
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0),
        _instruction(_AND_IMM, 2, immediate=0xFFFF),
        _instruction(_LOAD_WORD, 3, 1, 0),
        _instruction(_RSH_IMM, 3, immediate=16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    for rule in reversed(rules):
        code += _block(rule)
        if rule.type == "a":  # matches everything: what stands before it never decides
            return b"".join(code)
    code += [_instruction(_MOV_IMM, 0, immediate=0), _instruction(_EXIT)]
    return b"".join(code)


def _block(rule: DeviceRule) -> list[bytes]:
    """One rule: an allowing one must cover all that is asked for, of a denying one any part is enough."""
    checks: list[tuple[int, int, int, int]] = []  # (code, target, source, immediate) of a jump to the next rule
    before: list[bytes] = []
    access = sum(_ACCESS[letter] for letter in set(rule.access) if letter in _ACCESS)
    if rule.type != "a":
        checks.append((_JNE_IMM, 2, 0, _TYPES[rule.type]))
        if access != 7:
            before = [_instruction(_MOV_REG, 1, 3), _instruction(_AND_IMM, 1, immediate=access)]
        if rule.major is not None:
            checks.append((_JNE_IMM, 4, 0, rule.major))
        if rule.minor is not None:
            checks.append((_JNE_IMM, 5, 0, rule.minor))
    if before:
        checks.append((_JNE_REG, 1, 3, 0) if rule.allow else (_JEQ_IMM, 1, 0, 0))
    body = len(checks) + len(before) + 2
    code: list[bytes] = []
    for check, target, source, immediate in checks:
        if target == 1:
            code += before
        code.append(_instruction(check, target, source, body - len(code) - 1, immediate))
    return [*code, _instruction(_MOV_IMM, 0, immediate=int(rule.allow)), _instruction(_EXIT)]


class _Load(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    ]


class _Attach(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("target_fd", "attach_bpf_fd", "attach_type", "attach_flags")]


def load(code: bytes) -> int:
    """Have the kernel check and take a program; the fd is the caller's. OSError(EINVAL, EACCES) if the verifier refuses it."""
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Apache-2.0")
    attributes = _Load(
        prog_type=_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(code) // 8,
        insns=ctypes.addressof(instructions),
        license=ctypes.addressof(licence),
    )
    fd = syscalls.bpf(_PROG_LOAD, attributes)
    os.set_inheritable(fd, False)
    return fd


def attach(folder: str, rules: list[DeviceRule]) -> None:
    """Guard the cgroup at `folder` by `rules`. The program lives as long as the cgroup. OSError."""
    program_fd = load(program(rules))
    try:
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.bpf(_PROG_ATTACH, _Attach(folder_fd, program_fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
        finally:
            os.close(folder_fd)
    finally:
        os.close(program_fd)
