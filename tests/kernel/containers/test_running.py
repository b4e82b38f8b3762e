"""A container that runs: more programs in it, signals, freezing, numbers, limits, its network, and its end."""

from __future__ import annotations

import errno
import json
import os
import select
import time
from pathlib import Path
from typing import Any

import pytest

from bothy.containers import sandbox
from bothy.containers.start import Container, Stdio
from bothy.errors import StageError
from bothy.linux import links
from bothy.linux.links import Attachment, Interface, Route
from bothy.oci.runtime import Box, Cpu, Memory, Pids, Process, Resources, User


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def output(container: Container, args: list[str], *, privileged: bool = False, **more: Any) -> tuple[int, str]:
    """Exit code and output of one more program."""
    read, write = os.pipe()
    begun = container.exec(Process(args, env=["PATH=/bin"], **more), Stdio(-1, write, write), privileged=privileged)
    os.close(write)
    os.close(begun.pidfd)
    with open(read) as pipe:
        text = pipe.read()
    return wait(begun.pid), text


def drain(fd: int, until: str) -> str:
    """What comes from a terminal, until a text has come."""
    text = ""
    while until not in text and select.select([fd], [], [], 5)[0]:
        try:
            text += os.read(fd, 4096).decode()
        except OSError:
            break
    return text


def test_exec(rig_of_each_version: Any) -> None:
    rig = rig_of_each_version

    def body(container: Container, started: Any) -> Any:
        inside = "readlink /proc/self/ns/mnt /proc/1/ns/mnt; hostname; id; cat /proc/1/cmdline | tr '\\0' ' '"
        sets = rig.plan(["x"]).spec.process.capabilities
        return [
            output(container, ["sh", "-c", inside], user=User(username="ann"), capabilities=sets),
            output(container, ["sh", "-c", "for n in mnt net ipc uts user cgroup pid; do readlink /proc/self/ns/$n; done"]),
            [os.readlink(f"/proc/{started.pid}/ns/{name}") for name in ("mnt", "net", "ipc", "uts", "user", "cgroup", "pid")],
            output(container, ["sh", "-c", "exit 3"]),
            len(container.pids()),
        ]

    (code, text), (_, theirs), namespaces, (three, _), pids = rig.keep(rig.plan(["sleep", "60"]), body)
    assert (code, three, pids) == (0, 3, 1)
    assert "uid=1000(ann) gid=1000(ann) groups=10(wheel)" in text
    assert "box" in text
    assert text.rstrip().endswith("sleep 60")
    assert theirs.split() == namespaces


def test_exec_is_in_the_containers_groups(rig_of_each_version: Any) -> None:
    def body(container: Container, started: Any) -> Any:
        begun = container.exec(Process(["/bin/sleep", "60"]), Stdio())
        os.close(begun.pidfd)
        return sorted(container.pids()) == sorted([started.pid, begun.pid])

    assert rig_of_each_version.keep(rig_of_each_version.plan(["sleep", "60"]), body)


def test_exec_fails_as_the_main_program_does(rig: Any) -> None:
    def body(container: Container, started: Any) -> Any:
        told = []
        for process in (
            Process(["no-such"]),
            Process(["/bin/true"], user=User(username="nobody-here")),
            Process(["/bin/true"], cwd="/bin/true/x"),
        ):
            with pytest.raises(StageError) as caught:
                container.exec(process, Stdio())
            told.append((caught.value.stage, caught.value.errno))
        container.kill()
        wait(started.pid)
        with pytest.raises(StageError) as caught:
            container.exec(Process(["/bin/true"]), Stdio())
        return [*told, (caught.value.stage, "does not run" in caught.value.message)]

    assert rig.keep(rig.plan(["sleep", "60"]), body) == [
        ["exec", errno.ENOENT], ["user", 0], ["cwd", errno.ENOTDIR], ["fork", True],
    ]  # fmt: skip


def test_privileged_exec(rig: Any) -> None:
    def body(container: Container, started: Any) -> Any:
        sets = rig.plan(["x"]).spec.process.capabilities
        script = ["sh", "-c", "mount -t tmpfs x /tmp && echo mounted"]
        return [output(container, script, capabilities=sets), output(container, script, capabilities=sets, privileged=True)]

    (one, _), (two, text) = rig.keep(rig.plan(["sleep", "60"]), body)
    assert one != 0
    assert (two, text) == (0, "mounted\n")


def test_terminals(rig_of_each_version: Any) -> None:
    rig = rig_of_each_version

    def body(container: Container, started: Any) -> Any:
        os.write(started.terminal, b"tty; stty size; stat -c %t:%U /dev/console; echo en''d\n")
        first = drain(started.terminal, "\nend")
        process = Process(
            ["/bin/sh", "-c", "tty; stty size; id -u; echo en''d"],
            terminal=True,
            console_size=Box(11, 22),
            user=User(username="ann"),
        )
        begun = container.exec(process, Stdio())
        second = drain(begun.terminal, "\nend")
        os.close(begun.pidfd)
        wait(begun.pid)
        os.write(started.terminal, b"exit 4\n")
        return first, second, wait(started.pid)

    first, second, code = rig.keep(rig.plan(["sh"], terminal=True), body)
    assert "/dev/pts/0\r" in first
    assert "88:root\r" in first
    assert second.split()[:4] == ["/dev/pts/1", "11", "22", "1000"]
    assert code == 4


def test_hanging_up_ends_the_shell(rig: Any) -> None:
    def body(container: Container, started: Any) -> Any:
        drain(started.terminal, "#")
        os.close(started.terminal)
        return wait(started.pid)

    assert rig.keep(rig.plan(["sh"], terminal=True), body) in (-1, 0, 1, 129)


def test_signals_reach_the_program(rig: Any) -> None:
    def body(container: Container, started: Any) -> Any:
        while "SigCgt:\t0000000000000000" in (status := Path(f"/proc/{started.pid}/status").read_text()) and status:
            time.sleep(0.002)
        container.signal(10)
        code = wait(started.pid)
        with pytest.raises(ProcessLookupError):
            container.signal(10)
        return code

    assert rig.keep(rig.plan(["sh", "-c", "trap 'exit 6' USR1; while :; do usleep 1000; done"]), body) == 6


def test_freezing(rig_of_each_version: Any) -> None:
    rig = rig_of_each_version

    def body(container: Container, started: Any) -> Any:
        ticks = Path(f"/proc/{started.pid}/stat")
        container.pause()
        before = ticks.read_text().split()[13:15]
        select.select([], [], [], 0.05)
        after = ticks.read_text().split()[13:15]
        with pytest.raises(StageError, match="paused"):
            container.exec(Process(["/bin/true"]), Stdio())
        container.resume()
        code, _ = output(container, ["true"])
        container.pause()
        container.kill()  # also what is frozen dies
        return before == after, code, wait(started.pid)

    assert rig.keep(rig.plan(["sh", "-c", "while :; do :; done"]), body) == [True, 0, -9]


def test_numbers(rig: Any) -> None:
    def body(container: Container, started: Any) -> Any:
        return container.stats()

    stats = rig.keep(rig.plan(["sleep", "60"], resources=Resources(memory=Memory(limit=64 << 20), pids=Pids(50))), body)
    assert stats["memory_stats"]["limit"] == 64 << 20
    assert 0 < stats["memory_stats"]["usage"] < 64 << 20
    assert stats["pids_stats"] == {"current": 1, "limit": 50}
    assert 0 < stats["cpu_stats"]["cpu_usage"]["total_usage"] < stats["cpu_stats"]["system_cpu_usage"]
    assert stats["cpu_stats"]["online_cpus"] == os.cpu_count()


def test_a_memory_limit_kills_and_is_counted(rig: Any) -> None:
    def body(container: Container, started: Any) -> Any:
        return wait(started.pid), container.oom_count()

    limits = Resources(memory=Memory(limit=16 << 20, swap=16 << 20))
    plan = rig.plan(["sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=64 2>/dev/null; exit $?"], resources=limits)
    code, count = rig.keep(plan, body)
    assert code in (137, -9)
    assert count >= 1


def test_limits_can_change(rig: Any) -> None:
    def body(container: Container, started: Any) -> Any:
        container.update(Resources(memory=Memory(limit=64 << 20, swap=64 << 20)))
        first = container.stats()["memory_stats"]["limit"]
        container.update(
            Resources(memory=Memory(limit=32 << 20, swap=32 << 20), pids=Pids(9), cpu=Cpu(cpus="0", quota=50000, period=100000))
        )
        stats = container.stats()
        _, cpus = output(container, ["grep", "Cpus_allowed_list", "/proc/self/status"])
        with pytest.raises(StageError, match="cpuset"):
            container.update(Resources(cpu=Cpu(cpus="9999")))
        return first, stats["memory_stats"]["limit"], stats["pids_stats"]["limit"], cpus.split()[1]

    plan = rig.plan(["sleep", "60"], resources=Resources(memory=Memory(limit=32 << 20, swap=32 << 20)))
    assert rig.keep(plan, body) == [64 << 20, 32 << 20, 9, "0"]


def test_cpusets_and_shares(rig: Any) -> None:
    result = rig.run(
        ["sh", "-c", "grep Cpus_allowed_list /proc/self/status; nproc"], resources=Resources(cpu=Cpu(cpus="0", shares=512))
    )
    assert result.out.split()[1:] == ["0", "1"]


def test_its_own_groups_are_all_that_it_sees(rig_of_each_version: Any) -> None:
    rig = rig_of_each_version
    result = rig.run(
        ["sh", "-c", "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null; touch /sys/fs/cgroup/x 2>&1"]
    )
    assert result.out.split()[0] == "1"
    assert "Read-only" in result.out


def test_a_network_of_its_own(rig: Any, veth: str) -> None:
    bridge = f"{veth}b"
    links.create_bridge(bridge)
    try:
        links.add_address(bridge, "198.18.77.1/24")
        interface = Interface("eth0", "02:42:c6:12:4d:02", ["198.18.77.2/24"], [Route("default", "198.18.77.1")], 1400)
        script = "ip -o addr show eth0; ip route; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu"
        result = rig.run(["sh", "-c", script], attachments=[Attachment(interface, f"{veth}v", bridge)])
        assert "198.18.77.2/24" in result.out
        assert "default via 198.18.77.1" in result.out
        assert result.out.split()[-2:] == ["02:42:c6:12:4d:02", "1400"]

        def body(container: Container, started: Any) -> Any:
            return list(container.stats()["networks"])

        plan = rig.plan(["sleep", "60"], attachments=[Attachment(interface, f"{veth}v", bridge)])
        assert rig.keep(plan, body) == ["eth0"]
        failure = rig.run(["true"], attachments=[Attachment(interface, f"{veth}v", f"{veth}none")]).failure
        assert (failure["stage"], failure["errno"]) == ("network", errno.ENODEV)
    finally:
        links.delete_link(bridge)
        settle(veth)


def settle(prefix: str) -> None:
    """A veth goes with its namespace, in the kernel's own time."""
    end = time.monotonic() + 5
    while any(name.startswith(prefix) for name in links.links()) and time.monotonic() < end:
        time.sleep(0.01)


def test_the_program_dies_with_its_keeper(rig: Any) -> None:
    plan = rig.plan(["sleep", "60"])
    read, write = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        container = Container(plan, sandbox.make(plan.id_base), rig.hierarchies)
        os.write(write, str(container.start(Stdio()).pid).encode())
        os.kill(os.getpid(), 9)
    os.close(write)
    with open(read) as pipe:
        pid = int(pipe.read())
    os.waitpid(keeper, 0)
    end = time.monotonic() + 5
    while (
        time.monotonic() < end
        and Path(f"/proc/{pid}/status").exists()
        and "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    ):
        time.sleep(0.002)
    assert time.monotonic() < end
    while not rig.hierarchies.at(plan.cgroup).remove():
        time.sleep(0.002)


def test_thirty_at_once(rig: Any) -> None:
    plans = [rig.plan(["sh", "-c", "id -u > /who; exit 0"]) for _ in range(30)]
    keepers = []
    for plan in plans:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                container = Container(plan, sandbox.make(plan.id_base), rig.hierarchies)
                started = container.start(Stdio())
                code = wait(started.pid)
                container.cleanup()
            finally:
                os._exit(code)
        keepers.append(pid)
    assert [wait(pid) for pid in keepers] == [0] * 30


def test_nothing_grows_with_starts(rig: Any) -> None:
    """Descriptors of one keeper over failed starts and execs: all are closed."""

    def body(container: Container, started: Any) -> Any:
        counts = []
        for _ in range(3):
            for args in (["/bin/true"], ["no-such"]):
                try:
                    begun = container.exec(Process(args), Stdio())
                except StageError:
                    continue
                os.close(begun.pidfd)
                wait(begun.pid)
            counts.append(sorted(os.listdir("/proc/self/fd")))
        return counts

    counts = rig.keep(rig.plan(["sleep", "60"]), body)
    assert counts[0] == counts[1] == counts[2], json.dumps(counts)
