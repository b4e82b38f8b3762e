"""--pid, --ipc, --uts, --cgroupns, and the containers that share namespaces with others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine, await_, kill9


@pytest.fixture
def donor(settled: TestEngine) -> Iterator[TestEngine]:
    """A container called `t-donor` to share with."""
    settled(
        "run", "-d", "--name", "t-donor", "--ipc", "shareable", "busybox", "sh", "-c", "echo of donor > /dev/shm/x; exec sleep 300"
    ).ok()
    await_(lambda: settled("exec", "t-donor", "cat", "/dev/shm/x").out, "the file")
    yield settled
    settled("rm", "-f", "t-donor").ok()


def namespace(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def pid_of(engine: TestEngine, name: str) -> int:
    return int(engine.inspect(name)["State"]["Pid"])


def id_base(pid: int) -> int:
    return int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])


def test_the_hosts_namespaces(settled: TestEngine) -> None:
    flags = ("--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host")
    settled("run", "-d", "--name", "t-host", *flags, "busybox", "sleep", "300").ok()
    pid = pid_of(settled, "t-host")
    assert {kind for kind in ("pid", "ipc", "uts", "cgroup", "net", "user", "mnt") if namespace(pid, kind) == namespace("self", kind)} == {
        "pid", "ipc", "uts", "cgroup",
    }  # fmt: skip
    assert settled("exec", "t-host", "sh", "-c", f"readlink /proc/{pid}/ns/pid; cat /proc/{pid}/comm").ok().line.endswith("sleep")
    assert settled("exec", "t-host", "hostname").ok().line == os.uname().nodename
    assert settled("exec", "t-host", "sh", "-c", "kill -0 1 || echo no").ok().line.endswith("no")
    found = settled.inspect("t-host")["HostConfig"]
    assert [found[key] for key in ("PidMode", "IpcMode", "UTSMode", "CgroupnsMode")] == ["host"] * 4
    settled("stop", "-t", "0", "t-host").ok()
    settled("rm", "t-host").ok()


def test_what_is_left_running_in_the_hosts_pid_namespace_ends_with_the_container(settled: TestEngine) -> None:
    settled("run", "--rm", "--pid", "host", "busybox", "sh", "-c", "(sleep 4321 >/dev/null 2>&1 &) ; true").ok()
    commands = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert b"sleep\x004321\x00" not in commands


def test_processes_and_memory_of_another(donor: TestEngine) -> None:
    script = "cat /proc/1/comm /dev/shm/x; echo of guest > /dev/shm/y; kill -0 1 && readlink /proc/1/root >/dev/null; ps | grep -c 'sleep 30[0]'"
    both = ("--pid", "container:t-donor", "--ipc", "container:t-donor")
    assert donor("run", "--rm", *both, "busybox", "sh", "-c", script).ok().out == "sleep\nof donor\n1\n"
    assert donor("exec", "t-donor", "cat", "/dev/shm/y").ok().line == "of guest"
    donor("run", "-d", "--name", "t-guest", *both, "busybox", "sleep", "300").ok()
    ours, theirs = pid_of(donor, "t-guest"), pid_of(donor, "t-donor")
    assert all(namespace(ours, kind) == namespace(theirs, kind) for kind in ("pid", "ipc", "user"))
    assert all(namespace(ours, kind) != namespace(theirs, kind) for kind in ("mnt", "net", "uts"))
    assert donor.inspect("t-guest")["HostConfig"]["PidMode"] == f"container:{donor.inspect('t-donor')['Id']}"
    assert donor("exec", "t-guest", "cat", "/proc/1/comm").ok().line == "sleep"
    assert "sleep" in donor("top", "t-guest").ok().out
    # the end of its pid namespace is the end of everything in it
    donor("kill", "t-donor").ok()
    await_(lambda: donor.inspect("t-guest")["State"]["Status"] == "exited", "the guest's end")
    assert donor.inspect("t-guest")["State"]["ExitCode"] == 137
    done = donor("start", "t-guest")
    assert (done.code, "cannot join" in done.err) == (1, True)
    assert donor.inspect("t-guest")["State"]["Status"] == "exited"
    donor("start", "t-donor").ok()
    donor("start", "t-guest").ok()
    assert namespace(pid_of(donor, "t-guest"), "pid") == namespace(pid_of(donor, "t-donor"), "pid")
    donor("rm", "-f", "t-guest").ok()


def test_a_guest_may_set_up_the_network_that_it_shares(donor: TestEngine) -> None:
    shared = ("--network", "container:t-donor", "--cap-add", "NET_ADMIN")
    donor("run", "--rm", *shared, "busybox", "ip", "address", "add", "10.99.0.1/32", "dev", "lo").ok()
    assert "10.99.0.1" in donor("exec", "t-donor", "ip", "address", "show", "lo").ok().out


def test_ids_are_shared_until_the_last_has_ended(donor: TestEngine) -> None:
    """Also over the death of the daemon: nobody else may get the range of one that still runs."""
    donor("run", "-d", "--name", "t-guest", "--ipc", "container:t-donor", "busybox", "sleep", "300").ok()
    base = id_base(pid_of(donor, "t-guest"))
    assert base == id_base(pid_of(donor, "t-donor"))
    kill9(donor.pid_of("bothyd"))
    donor("rm", "-f", "t-donor").ok()
    donor("run", "-d", "--name", "t-donor", "busybox", "sleep", "300").ok()
    others = [f"t-other{number}" for number in range(8)]
    for name in others:
        donor("run", "-d", "--name", name, "busybox", "sleep", "300").ok()
    assert base not in {id_base(pid_of(donor, name)) for name in ("t-donor", *others)}
    donor("rm", "-f", "t-guest", *others).ok()


def test_what_can_not_be_shared(donor: TestEngine) -> None:
    donor("run", "-d", "--name", "t-alone", "busybox", "sleep", "300").ok()
    for flags, words in (
        (("--ipc", "container:t-alone"), "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"),
        (("--ipc", "container:t-nobody"), "No such container: t-nobody"),
        (("--pid", "container:t-nobody"), "No such container: t-nobody"),
        (("--pid", "nonsense"), "--pid"),
        (("--ipc", "nonsense"), "invalid IPC mode: nonsense"),
        (("--uts", "host", "--hostname", "x"), "conflicting options: hostname and the UTS mode"),
    ):
        done = donor("run", "--rm", *flags, "busybox", "true")
        assert (done.code, words in done.err) == (125, True), done.err
    donor("rm", "-f", "t-alone").ok()


def test_a_dev_shm_that_leads_elsewhere_is_not_followed(settled: TestEngine) -> None:
    """The other container is a stranger: what it has put in the place stays inside of it."""
    script = "umount /dev/shm && rmdir /dev/shm && ln -s /etc /dev/shm && echo ready && exec sleep 300"
    settled("run", "-d", "--name", "t-evil", "--ipc", "shareable", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined",
            "busybox", "sh", "-c", script).ok()  # fmt: skip
    await_(lambda: settled("logs", "t-evil").out or settled.inspect("t-evil")["State"]["Status"] != "running", "the link")
    done = settled("run", "--rm", "--ipc", "container:t-evil", "busybox", "sh", "-c", "ls /dev/shm")
    assert "shadow" not in done.out
    settled("rm", "-f", "t-evil").ok()


def test_a_machine_has_namespaces_of_its_own(bothy: Walled) -> None:
    if bothy.wall == "container":
        bothy(
            "run",
            "--rm",
            "--ipc",
            "none",
            "--cgroupns",
            "private",
            "busybox",
            "sh",
            "-c",
            "! grep /dev/shm /proc/mounts",
        ).ok()
        return
    for flag in ("--pid=host", "--ipc=host", "--ipc=none", "--uts=host", "--cgroupns=host", "--pid=container:x"):
        done = bothy("run", "--rm", flag, "busybox", "true")
        assert (done.code, "a machine" in done.err or "for a machine" in done.err, "hint: leave --" in done.err) == (
            125,
            True,
            True,
        ), done.err


def test_the_domain_name(bothy: Walled) -> None:
    script = "cat /proc/sys/kernel/domainname; hostname -f"
    found = bothy("run", "--rm", "--hostname", "box", "--domainname", "example.test", "busybox", "sh", "-c", script).ok()
    assert found.out.split() == ["example.test", "box.example.test"]
