"""The BPF program of device rules, run by a small interpreter: it must decide as v1's list does."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.containers import defaults
from bothy.containers.cgroups.devices import program
from bothy.oci.runtime import DeviceRule

READ, WRITE, MKNOD = 2, 4, 1
TYPES = {"b": 1, "c": 2}


def run(code: bytes, kind: str, access: int, major: int, minor: int) -> int:
    """What the kernel would do with the program."""
    context = struct.pack("=III", access << 16 | TYPES[kind], major, minor)
    registers = [0] * 11
    at = 0
    for _ in range(100_000):
        opcode, pair, offset, immediate = struct.unpack_from("=BBhi", code, at * 8)
        target, source = pair & 15, pair >> 4
        at += 1
        match opcode:
            case 0x61:
                registers[target] = struct.unpack_from("=I", context, offset)[0]
            case 0x54:
                registers[target] &= immediate & 0xFFFFFFFF
            case 0x74:
                registers[target] >>= immediate
            case 0xB7:
                registers[target] = immediate
            case 0xBC:
                registers[target] = registers[source] & 0xFFFFFFFF
            case 0x15:
                at += offset if registers[target] == immediate else 0
            case 0x55:
                at += offset if registers[target] != immediate else 0
            case 0x5D:
                at += offset if registers[target] != registers[source] else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"opcode {opcode:#x}")
    raise AssertionError("the program does not end")


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "allowed"),
    [
        ("c", READ | WRITE, 1, 3, True),
        ("c", MKNOD, 99, 99, True),
        ("c", READ | MKNOD, 99, 99, False),
        ("b", MKNOD, 8, 0, True),
        ("b", READ, 8, 0, False),
        ("c", READ, 10, 232, False),
        ("c", READ | WRITE, 136, 7, True),
        ("c", READ, 5, 2, True),
        ("c", READ, 5, 3, False),
    ],
)
def test_defaults(kind: str, access: int, major: int, minor: int, allowed: bool) -> None:
    assert run(program(defaults.device_rules()), kind, access, major, minor) == int(allowed)


def test_privileged_allows_everything() -> None:
    assert run(program(defaults.device_rules(privileged=True)), "b", READ | WRITE | MKNOD, 8, 0) == 1


def test_no_rules_refuse_everything() -> None:
    assert run(program([]), "c", READ, 1, 3) == 0


RULES = st.lists(
    st.builds(
        DeviceRule,
        allow=st.booleans(),
        type=st.sampled_from("abc"),
        major=st.none() | st.integers(0, 3),
        minor=st.none() | st.integers(0, 3),
        access=st.sampled_from(["r", "w", "m", "rw", "rm", "rwm"]),
    ),
    max_size=6,
)


@given(RULES, st.sampled_from("bc"), st.integers(1, 7), st.integers(0, 3), st.integers(0, 3))
def test_the_last_matching_rule_decides(rules: list[DeviceRule], kind: str, access: int, major: int, minor: int) -> None:
    expected = 0
    for rule in rules:
        covered = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in rule.access)
        spoken_of = access & ~covered == 0 if rule.allow else bool(access & covered)
        if rule.type == "a" or (rule.type == kind and spoken_of and rule.major in (None, major) and rule.minor in (None, minor)):
            expected = int(rule.allow)
    assert run(program(rules), kind, access, major, minor) == expected
