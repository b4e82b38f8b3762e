"""Security flags: `--security-opt`, capabilities, devices, namespaces to share; checked first. Pure but for `devices`."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from bothy.containers import defaults
from bothy.containers.rootfs import IPC_SYSCTLS
from bothy.engine.model import DeviceMapping, HostConfig, ThrottleDevice
from bothy.errors import Invalid, NotFound, Unsupported
from bothy.linux import sysctl
from bothy.oci.runtime import BlockIO, Device, DeviceRule, Throttle

ALL_CAPABILITIES = (1 << 64) - 1
_MOST = 0x7FFFFFFF  # of ids


@dataclass(frozen=True)
class Security:
    """What the `--security-opt`s say. `seccomp` is `default`, `unconfined`, or a profile as JSON text."""

    no_new_privileges: bool = False
    seccomp: str = "default"
    open_system_paths: bool = False
    warnings: tuple[str, ...] = ()


def options(words: Iterable[str], *, privileged: bool) -> Security:
    """Read the `--security-opt`s. Raises Invalid for an unknown one or a profile that is not JSON."""
    found = Security(seccomp="unconfined" if privileged else "default")
    no_new, seccomp, open_paths, warnings = False, found.seccomp, False, []
    for word in words:
        key, _, value = word.replace(":", "=", 1).partition("=") if "=" not in word else word.partition("=")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            no_new = value != "false"
        elif key == "seccomp" and value:
            seccomp = "default" if value == "builtin" else value
        elif key == "systempaths" and value == "unconfined":
            open_paths = True
        elif key in ("apparmor", "label", "writable-cgroups"):
            if value not in ("unconfined", "disable", "false", "docker-default"):
                warnings.append(f"security option {word} is not supported on this host and was ignored")
        else:
            raise Invalid(f"invalid --security-opt: {word!r}", hint="known: no-new-privileges, seccomp=, systempaths=unconfined")
    if seccomp not in ("default", "unconfined"):
        try:
            json.loads(seccomp)
        except ValueError as exc:
            raise Invalid(
                f"decoding seccomp profile failed: {exc}", hint="the API takes the profile's JSON, not its path"
            ) from None
    return Security(no_new, seccomp, open_paths, tuple(warnings))


def check(asked: HostConfig, *, machine: bool) -> list[str]:
    """Warnings; raises Invalid or Unsupported for what this engine can not do, before anything is made."""
    found = options(asked.security_opt, privileged=asked.privileged)
    defaults.capabilities(asked.cap_add, asked.cap_drop, privileged=asked.privileged)
    _check_namespaces(asked, machine=machine)
    for group in asked.group_add:
        if not group or (group.isascii() and group.isdecimal() and int(group) > _MOST):
            raise Invalid(f"unable to find group {group}", hint=f"give the name of a group in the image, or a number up to {_MOST}")
    if not machine:
        _check_sysctls(asked)
    device_rules(asked.device_cgroup_rules)
    if not machine:
        devices(asked.devices)
        throttles(asked)
    if asked.devices and machine:
        raise Unsupported("a machine can not be given a device of the host", hint="run it as a container")
    if machine and found.seccomp not in ("default", "unconfined"):
        return [*found.warnings, "the seccomp profile is not applied: a machine has a kernel of its own"]
    return list(found.warnings)


def _check_namespaces(asked: HostConfig, *, machine: bool) -> None:
    for flag, word, mode, known in (
        ("--ipc", "IPC", asked.ipc_mode, ("", "private", "shareable", "none", "host", "container:NAME")),
        ("--pid", "PID", asked.pid_mode, ("", "private", "host", "container:NAME")),
        ("--uts", "UTS", asked.uts_mode, ("", "private", "host")),
        ("--cgroupns", "cgroup namespace", asked.cgroupns_mode, ("", "private", "host")),
        ("--userns", "user namespace", asked.userns_mode, ("", "private", "host")),
    ):
        is_other = mode.startswith("container:") and mode != "container:" and "container:NAME" in known
        if not is_other and mode not in known:
            raise Invalid(f"invalid {word} mode: {mode}", hint=f"{flag} takes {', '.join(filter(None, known))}")
        if machine and (is_other or mode == "host" or (flag == "--ipc" and mode == "none")) and flag != "--userns":
            raise Unsupported(f"{flag} {mode} is not for a machine: it has a kernel of its own", hint=f"leave {flag} out")
    if machine and asked.network_mode == "host":
        raise Unsupported("a machine can not share the host's network: it has a kernel of its own", hint="use --network bridge")


def _check_sysctls(asked: HostConfig) -> None:
    """Only what belongs to the container's own namespaces may be set. Raises Invalid in runc's words (validate/validator.go)."""
    for given in asked.sysctls:
        try:
            name = sysctl.path(given).replace("/", ".")
        except ValueError:
            name = ""
        if name in IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if asked.ipc_mode == "host":
                raise Invalid(f'sysctl "{given}" is not allowed in the hosts ipc namespace', hint="leave out --ipc host")
        elif name.startswith("net."):
            if asked.network_mode == "host":
                raise Invalid(f'sysctl "{given}" not allowed in host network namespace', hint="leave out --network host")
        elif name == "kernel.hostname":
            raise Invalid(f'sysctl "{given}" is not allowed as it conflicts with the OCI "hostname" field', hint="use --hostname")
        elif name != "kernel.domainname" or asked.uts_mode == "host":
            raise Invalid(
                f'sysctl "{given}" is not in a separate kernel namespace',
                hint="net.*, kernel.shm*, kernel.msg*, fs.mqueue.* are; a machine has them all",
            )


def devices(mappings: Iterable[DeviceMapping]) -> tuple[list[Device], list[DeviceRule]]:
    """Nodes and rules for `--device`. Looks at the host's nodes. Raises NotFound, Invalid."""
    nodes, rules = [], []
    for mapping in mappings:
        target = mapping.path_in_container or mapping.path_on_host
        if not target.startswith("/"):
            raise Invalid(f"{target!r} is not an absolute path")
        if not mapping.cgroup_permissions or set(mapping.cgroup_permissions) - set("rwm"):
            raise Invalid(f"invalid device mode {mapping.cgroup_permissions!r}", hint="use some of rwm")
        for path in _device_files(mapping.path_on_host):
            status = os.stat(path)
            kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
            major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            inside = target + path[len(mapping.path_on_host) :]
            nodes.append(Device(inside, kind, major, minor, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid))
            rules.append(DeviceRule(allow=True, type=kind, major=major, minor=minor, access=mapping.cgroup_permissions))
    return nodes, rules


def device_rules(texts: Iterable[str]) -> list[DeviceRule]:
    """What `--device-cgroup-rule` adds. Raises Invalid in Docker's words (daemon/container.go)."""
    found = []
    for text in texts:
        match = re.fullmatch(r"([acb]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})", text)
        if match is None:
            raise Invalid(f"invalid device cgroup rule format: '{text}'", hint="for instance 'c 42:* rmw'")
        major, minor = (None if number == "*" else int(number) for number in match.group(2, 3))
        found.append(DeviceRule(allow=True, type=match[1], major=major, minor=minor, access=match[4]))
    return found


def throttles(asked: HostConfig) -> BlockIO | None:
    """The bounds for block devices; None where there are none. Looks at the host's nodes. Raises NotFound, Invalid."""
    given = (
        asked.blkio_device_read_bps, asked.blkio_device_write_bps, asked.blkio_device_read_iops, asked.blkio_device_write_iops
    )  # fmt: skip
    return BlockIO(*([_throttle(one) for one in some] for some in given)) if any(given) else None


def _throttle(asked: ThrottleDevice) -> Throttle:
    try:
        status = os.stat(asked.path)
    except (OSError, ValueError):
        raise NotFound(f"no such block device: {asked.path}") from None
    if not stat.S_ISBLK(status.st_mode):
        raise Invalid(f"{asked.path!r} is not a block device")
    if not 0 < asked.rate < 1 << 63:
        raise Invalid(f"invalid rate for device {asked.path}: {asked.rate}", hint="bytes or operations a second, from 1")
    return Throttle(os.major(status.st_rdev), os.minor(status.st_rdev), asked.rate)


def _device_files(path: str) -> list[str]:
    """The device at a path, or all below a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        raise NotFound(
            f"error gathering device information while adding custom device {path!r}: no such file or directory"
        ) from None
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return [path]
    if not stat.S_ISDIR(mode):
        raise Invalid(f"{path!r} is not a device node")
    below = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in sorted(names))
    return [p for p in below if os.path.exists(p) and (stat.S_ISCHR(os.stat(p).st_mode) or stat.S_ISBLK(os.stat(p).st_mode))]
