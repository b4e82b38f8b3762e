"""What a workload may not do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled

DEFAULT_CAPS = 0x00000000A80425FB


def status(bothy: Walled, *flags: str) -> dict[str, str]:
    out = bothy("run", "--rm", *flags, "busybox", "cat", "/proc/self/status").ok().out
    return {key: value.strip() for key, _, value in (line.partition(":") for line in out.splitlines())}


def test_default_capabilities_are_dockers(bothy: Walled) -> None:
    seen = status(bothy)
    assert int(seen["CapEff"], 16) == int(seen["CapBnd"], 16) == int(seen["CapPrm"], 16) == DEFAULT_CAPS
    assert int(seen["CapInh"], 16) == int(seen["CapAmb"], 16) == 0
    assert seen["Seccomp"] == ("0" if bothy.wall == "vm" else "2")  # a machine's kernel is its own: nothing is to be kept from it
    assert seen["NoNewPrivs"] == "0"


def test_capabilities_added_and_dropped(bothy: Walled) -> None:
    seen = int(status(bothy, "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")["CapEff"], 16)
    assert seen == 1 << 12


def test_all_capabilities_are_all_that_we_have(bothy: Walled) -> None:
    with open("/proc/self/status") as own:
        ours = int(next(line.split()[1] for line in own if line.startswith("CapBnd")), 16)
    seen = int(status(bothy, "--privileged")["CapEff"], 16)
    assert seen & ours == ours if bothy.wall == "vm" else seen == ours


def test_another_user_has_none(bothy: Walled) -> None:
    assert int(status(bothy, "-u", "1000")["CapEff"], 16) == 0


def test_no_new_privileges(bothy: Walled) -> None:
    assert status(bothy, "--security-opt", "no-new-privileges")["NoNewPrivs"] == "1"


def test_unconfined(bothy: Walled) -> None:
    assert status(bothy, "--security-opt", "seccomp=unconfined")["Seccomp"] == "0"


@pytest.mark.parametrize("script", ["mount -t tmpfs x /tmp", "mknod /sda b 8 0 && cat /sda", "head -c1 /proc/kcore | grep ."])
def test_refused(bothy: Walled, script: str) -> None:
    assert bothy("run", "--rm", "busybox", "sh", "-c", f"({script}) >/dev/null 2>&1").code != 0


@pytest.mark.parametrize("script", ["unshare -U true", "echo 1 > /proc/sys/kernel/panic", "echo b > /proc/sysrq-trigger"])
def test_the_hosts_kernel_is_out_of_reach(bothy: Walled, script: str) -> None:
    """A container may not do this; a machine does it to its own kernel, and the host does not notice."""
    before = Path("/proc/sys/kernel/panic").read_text()
    code = bothy("run", "--rm", "busybox", "sh", "-c", f"({script}) >/dev/null 2>&1; echo $?").out.strip()
    assert Path("/proc/sys/kernel/panic").read_text() == before
    if bothy.wall == "container":
        assert code != "0"


def test_container_root_is_not_host_root(bothy: Walled) -> None:
    if bothy.wall == "vm":
        assert bothy("run", "--rm", "busybox", "uname", "-r").ok().line != os.uname().release
        return
    bothy("run", "-d", "--name", "t-ids", "busybox", "sleep", "300").ok()
    pid = bothy.engine.inspect("t-ids")["State"]["Pid"]
    with open(f"/proc/{pid}/status") as seen:
        uid = int(next(line.split()[1] for line in seen if line.startswith("Uid")))
    assert uid >= 1_000_000
    bothy("rm", "-f", "t-ids").ok()


def test_userns_host(bothy: Walled) -> None:
    bothy("run", "-d", "--userns", "host", "--name", "t-host-ids", "busybox", "sleep", "300").ok()
    if bothy.wall == "container":
        pid = bothy.engine.inspect("t-host-ids")["State"]["Pid"]
        with open(f"/proc/{pid}/status") as seen:
            assert int(next(line.split()[1] for line in seen if line.startswith("Uid"))) == 0
    bothy("rm", "-f", "t-host-ids").ok()


def test_unknown_options_are_refused(bothy: Walled) -> None:
    for flags in (
        ("--cap-add", "NO_SUCH"),
        ("--security-opt", "nonsense"),
        ("--network", "no-such-net"),
        ("-v", "relative:not-absolute"),
        ("--no-such-flag",),
    ):
        done = bothy("run", "--rm", *flags, "busybox", "true")
        assert done.code == 125, flags
        assert "Traceback" not in done.err
