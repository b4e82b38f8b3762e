"""Seccomp profiles: which rules hold, and the program that libseccomp makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bothy.containers import defaults, profile, seccomp
from bothy.errors import Invalid


def names(caps: list[str] | tuple[str, ...], machine: str = "x86_64", release: str = "6.1.0-1-amd64") -> set[str]:
    rules = seccomp.rules(profile.default(), caps, machine, release)
    return {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_the_default_profile_refuses_what_reaches_the_host() -> None:
    allowed = names(defaults.CAPABILITIES)
    refused = {"mount", "umount2", "unshare", "setns", "bpf", "init_module", "reboot", "kexec_load", "keyctl", "io_uring_setup"}
    assert allowed.isdisjoint(refused)
    assert {"read", "openat", "execve", "clone", "socket", "chroot", "fchmodat2", "openat2"} <= allowed


def test_capabilities_open_calls() -> None:
    assert {"mount", "unshare", "setns"} <= names(["CAP_SYS_ADMIN"])
    assert "syslog" in names(["CAP_SYSLOG"])
    assert "chroot" not in names([])


def test_architectures() -> None:
    assert "arch_prctl" in names([], "x86_64")
    assert "arch_prctl" not in names([], "aarch64")
    assert seccomp.architectures(profile.default(), "x86_64") == ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def test_kernel_versions() -> None:
    text = {"syscalls": [{"names": ["x"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}}]}
    assert seccomp.rules(text, [], "x86_64", "4.7.3") == []
    assert len(seccomp.rules(text, [], "x86_64", "4.18.0-305.el8")) == 1


def test_a_program_is_compiled_once(tmp_path: Path) -> None:
    first = seccomp.compile(None, defaults.CAPABILITIES, tmp_path)
    stamp = Path(first).stat().st_mtime_ns
    assert Path(first).stat().st_size % 8 == 0
    assert seccomp.compile(None, reversed(defaults.CAPABILITIES), tmp_path) == first
    assert Path(first).stat().st_mtime_ns == stamp
    assert seccomp.compile(None, [], tmp_path) != first
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_users_own_profile(tmp_path: Path) -> None:
    text = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"name": "chmod", "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 511, "op": "SCMP_CMP_EQ"}]},
        ],
    }
    assert Path(seccomp.compile(seccomp.load_profile(json.dumps(text)), [], tmp_path)).stat().st_size > 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defaultAction": 5}', "{"])
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(Invalid):
        seccomp.load_profile(text)


@pytest.mark.parametrize(
    "text",
    [
        {"defaultAction": "SCMP_ACT_FLY"},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "NO"}]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "op": "?"}]}],
        },
    ],
)
def test_profiles_that_make_no_sense_leave_no_file(tmp_path: Path, text: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        seccomp.compile(text, [], tmp_path)
    assert list(tmp_path.iterdir()) == []
