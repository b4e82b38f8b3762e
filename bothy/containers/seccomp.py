"""From a seccomp profile in Docker's form to a BPF program on disk, by libseccomp. Called by the engine, not behind the fork wall.

    cache/seccomp-<sha256 of profile, capabilities, architecture, kernel, library>.bpf      made once, written atomically

libseccomp is loaded when the first program has to be compiled. Sources: libseccomp's seccomp_*(3), Docker's profile format.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bothy.containers import profile as profiles
from bothy.errors import Broken, Invalid, Unsupported

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000, "SCMP_ACT_KILL_THREAD": 0x00000000, "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
_OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "s390x": "SCMP_ARCH_S390X", "riscv64": "SCMP_ARCH_RISCV64",
           "ppc64le": "SCMP_ARCH_PPC64LE"}  # fmt: skip
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_OPTIMIZE, _BINARY_TREE = 8, 2  # SCMP_FLTATR_CTL_OPTIMIZE (libseccomp 2.5): hundreds of rules are searched, not tried one by one
_UNKNOWN = -1  # __NR_SCMP_ERROR
_EEXIST, _EDOM, _EFAULT, _EOPNOTSUPP = -17, -33, -14, -95


class _Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("datum_a", ctypes.c_uint64), ("datum_b", ctypes.c_uint64)]


def load_profile(text: str) -> dict[str, Any]:
    """A profile as a user gave it (JSON). Raises Invalid."""
    try:
        profile = json.loads(text)
    except ValueError as exc:
        raise Invalid(f"the seccomp profile is not JSON: {exc}") from None
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise Invalid("the seccomp profile has no defaultAction")
    return profile


def compile(profile: dict[str, Any] | None, capabilities: Iterable[str], cache: Path) -> str:  # noqa: A001
    """The path of the compiled program of `profile` (None: the default one) for a program with these capabilities.

    Made if it is not in `cache` yet (about 20 ms), which is made too. Raises Invalid for a profile that makes no sense, Unsupported
    without libseccomp.
    """
    caps = sorted(capabilities)
    system = os.uname()
    chosen = profiles.default() if profile is None else profile
    key = json.dumps([chosen, caps, system.machine, system.release, 1], sort_keys=True)
    path = cache / f"seccomp-{hashlib.sha256(key.encode()).hexdigest()}.bpf"
    if path.exists():
        return str(path)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, prefix=".seccomp-", delete=False) as file:
        try:
            _export(chosen, caps, file.fileno())
            os.rename(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    return str(path)


def rules(profile: dict[str, Any], capabilities: Iterable[str], machine: str, release: str) -> list[dict[str, Any]]:
    """The rules of a profile that hold for these capabilities, this architecture and this kernel. Pure."""
    caps, arch = set(capabilities), _GO_NAMES.get(machine, machine)
    kernel = _version(release)
    found = []
    for rule in profile.get("syscalls") or []:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if not set(includes.get("caps") or ()) <= caps or set(excludes.get("caps") or ()) & caps:
            continue
        if (includes.get("arches") and arch not in includes["arches"]) or arch in (excludes.get("arches") or ()):
            continue
        if includes.get("minKernel") and kernel < _version(includes["minKernel"]):
            continue
        if excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]):
            continue
        found.append(rule)
    return found


def _version(text: str) -> tuple[int, int]:
    numbers = text.split("-")[0].split(".")
    try:
        return int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0
    except ValueError:
        return (0, 0)


def architectures(profile: dict[str, Any], machine: str) -> list[str]:
    """The foreign architectures whose calls the profile covers too (32-bit programs)."""
    native = _NATIVE.get(machine, "")
    listed = [a for a in profile.get("architectures") or [] if a != native]
    for entry in profile.get("archMap") or []:
        if entry.get("architecture") == native:
            listed += entry.get("subArchitectures") or []
    return listed


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        hint = "install libseccomp2, or run with --security-opt seccomp=unconfined"
        raise Unsupported("libseccomp is not on this host", hint=hint) from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
    ]  # fmt: skip
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def _action(name: str, errno_return: int | None) -> int:
    if name not in _ACTIONS:
        raise Invalid(f"unknown seccomp action {name!r}")
    value = _ACTIONS[name]
    return value | (1 if errno_return is None else errno_return) if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else value


def _export(profile: dict[str, Any], capabilities: list[str], fd: int) -> None:
    """Compile and write to `fd`."""
    library, system = _library(), os.uname()
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise Invalid(f"libseccomp refuses the default action {profile['defaultAction']}")
    try:
        for name in architectures(profile, system.machine):
            token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            result = library.seccomp_arch_add(context, token) if token else 0
            if result not in (0, _EEXIST, _EDOM):
                raise Invalid(f"libseccomp refuses the architecture {name}")
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
        for rule in rules(profile, capabilities, system.machine, system.release):
            _add(library, context, rule, default)
        result = library.seccomp_export_bpf(context, fd)
        if result < 0:
            raise Broken(f"libseccomp can not write its program: {os.strerror(-result)}")
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, rule: dict[str, Any], default: int) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    for names in rule.get("names") or [rule.get("name", "")]:
        number = library.seccomp_syscall_resolve_name(names.encode())
        if number == _UNKNOWN:
            continue
        for compares in _conditions(rule.get("args") or []):
            array = (_Compare * max(1, len(compares)))(*compares)
            result = library.seccomp_rule_add_array(context, action, number, len(compares), array)
            if result not in (0, _EDOM, _EEXIST, _EFAULT, _EOPNOTSUPP):
                raise Invalid(f"libseccomp refuses the rule for {names}: {os.strerror(-result)}")


def _conditions(arguments: list[dict[str, Any]]) -> list[list[_Compare]]:
    """All conditions in one rule; where two are about one argument, which the library can not do, one rule each."""
    compares = []
    for argument in arguments:
        operator = _OPERATORS.get(argument.get("op", ""))
        if operator is None:
            raise Invalid(f"unknown seccomp operator {argument.get('op')!r}")
        # a masked comparison has its mask first, then what must be left of it
        compares.append(_Compare(argument["index"], operator, argument.get("value", 0), argument.get("valueTwo", 0)))
    indices = [c.arg for c in compares]
    return [compares] if len(set(indices)) == len(indices) else [[c] for c in compares]
