"""Every flag of `docker run --help` over bothy's own command line and Docker's, on both walls: it works, or one line says why not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import Result, TestEngine, await_

BLOCK = next((f"/dev/{name}" for name in sorted(os.listdir("/sys/block")) if Path(f"/dev/{name}").is_block_device()), "")
DOCKER = shutil.which("docker", path="/usr/local/bin:/usr/bin")


class Case(NamedTuple):
    """`flags` of run and the `script` that shows what they do. `out` is a pattern of its output, of a container and of a machine;
    one that begins with `!` is of what is said on stderr when it is refused (by exit code 127 where Docker's client reads "no such
    file"), with `?` of a warning beside the output `ok`."""

    flags: tuple[str, ...]
    script: str
    out: str
    machine: str = ""

    def __str__(self) -> str:
        return " ".join(self.flags).replace("/", "_")


KERNEL = "kernel of its own"
CASES = [
    Case(("--add-host", "far:10.9.8.7", "--add-host", "gate:host-gateway"), "grep -c '10.9.8.7.far' /etc/hosts; grep -c gate /etc/hosts", "1\n1"),
    Case(("--annotation", "a=b"), "echo ok", "ok"),
    Case(("--attach", "stdout"), "echo ok; echo hidden >&2", "ok"),
    Case(("--blkio-weight", "300"), "echo ok", "?Block I/O weight"),
    Case(("--cap-add", "SYS_TIME"), "grep CapEff /proc/self/status", "CapEff:\t00000000aa0425fb"),
    Case(("--cap-drop", "ALL"), "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"),
    Case(("--cgroup-parent", "x"), "echo ok", "!a cgroup parent can not be chosen"),
    Case(("--cgroupns", "private"), "echo ok", "ok"),
    Case(("--cgroupns", "host"), "echo ok", "ok", f"!{KERNEL}"),
    Case(("--cpu-period", "50000", "--cpu-quota", "25000"), "cat /sys/fs/cgroup/cpu*/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null | head -1", "25000.*", ".*"),
    Case(("--cpu-rt-runtime", "100"), "echo ok", "!realtime CPU limits are not supported"),
    Case(("--cpu-shares", "512"), "cat /sys/fs/cgroup/cpu*/cpu.shares /sys/fs/cgroup/cpu.weight 2>/dev/null | head -1", "512|20", ".*"),
    Case(("--cpus", "0.5"), "nproc >/dev/null && echo ok", "ok"),
    Case(("--cpuset-cpus", "0"), "grep Cpus_allowed_list /proc/self/status", "Cpus_allowed_list:\t0", "Cpus_allowed_list:\t0"),
    Case(("--device", "/dev/fuse:/dev/inside:r"), "stat -c %F /dev/inside; (exec 3<>/dev/inside) 2>/dev/null && echo both; true", "character special file", "!a machine can not be given a device"),
    Case(("--device", "/dev/no-such"), "echo ok", "!error gathering device information", "!a machine can not be given a device"),
    Case(("--device-cgroup-rule", "c 42:* rmw"), "echo ok", "ok", "!machine has its own devices"),
    Case(("--device-write-iops", f"{BLOCK}:1000"), "echo ok", "ok", "!can not be limited for a machine"),
    Case(("--dns", "9.8.7.6", "--dns-search", "s.test", "--dns-option", "ndots:3"), "grep -c 'search s.test' /etc/resolv.conf; grep -c ndots:3 /etc/resolv.conf", "1\n1"),
    Case(("--domainname", "d.test", "--hostname", "h"), "hostname -f", "h.d.test"),
    Case(("--entrypoint", "echo"), "ok", "-c ok"),
    Case(("--env", "A=b"), "echo $A", "b"),
    Case(("--expose", "80", "--publish-all"), "echo ok", "ok"),
    Case(("--gpus", "all"), "echo ok", "!(gpus is not supported|could not select device driver)"),
    Case(("--group-add", "77"), "id -G", "(0 )?(.* )?77.*"),
    Case(("--init",), "cat /proc/1/comm", "init|bothy-init|.*", ".*"),
    Case(("--ipc", "none"), "grep -c /dev/shm /proc/mounts || true", "0", f"!{KERNEL}"),
    Case(("--ipc", "host"), "echo ok", "ok", f"!{KERNEL}"),
    Case(("--isolation", "default"), "echo ok", "ok"),
    Case(("--isolation", "hyperv"), "echo ok", "!invalid isolation 'hyperv' on linux"),
    Case(("--label", "a=b"), "echo ok", "ok"),
    Case(("--link-local-ip", "169.254.3.4"), "echo ok", "!link-local addresses can not be chosen"),
    Case(("--log-driver", "none"), "echo ok", "ok"),
    Case(("--log-driver", "journald"), "echo ok", "!no log driver named 'journald'"),
    Case(("--log-opt", "max-size=1m", "--log-opt", "max-file=2"), "echo ok", "ok"),
    Case(("--mac-address", "02:42:ac:11:22:33"), "cat /sys/class/net/eth0/address", "02:42:ac:11:22:33"),
    Case(("--memory", "64m", "--memory-reservation", "32m"), "echo ok", "ok", "?memory-reservation has no effect"),
    Case(("--memory", "4m"), "echo ok", "!Minimum memory limit allowed is 6MB"),
    Case(("--memory", "64m", "--memory-swap", "128m", "--memory-swappiness", "10"), "echo ok", "ok", "?memory-swappiness has no effect"),
    Case(("--mount", "type=tmpfs,dst=/u"), "grep -c ' /u tmpfs' /proc/mounts", "1"),
    Case(("--network", "none"), "ls /sys/class/net", "lo"),
    Case(("--no-healthcheck",), "echo ok", "ok"),
    Case(("--oom-kill-disable", "--memory", "64m"), "echo ok", "ok", "?oom-kill-disable has no effect"),
    Case(("--oom-score-adj", "300"), "cat /proc/self/oom_score_adj", "300"),
    Case(("--oom-score-adj", "3000"), "echo ok", "!range for oom score adj is"),
    Case(("--pid", "host"), "echo ok", "ok", f"!{KERNEL}"),
    Case(("--pids-limit", "40"), "echo ok", "ok"),
    Case(("--platform", "linux/amd64"), "uname -s", "Linux"),
    Case(("--privileged",), "mkdir /m && mount -t tmpfs x /m && echo ok", "ok"),
    Case(("--publish", "127.0.0.1::80"), "echo ok", "ok"),
    Case(("--pull", "never"), "echo ok", "ok"),
    Case(("--quiet",), "echo ok", "ok"),
    Case(("--read-only", "--tmpfs", "/t"), "touch /x || touch /t/x && ls /t", "x"),
    Case(("--runtime", "io.containerd.runc.v2"), "echo ok", "ok", "exclude"),
    Case(("--runtime", "kata"), "echo ok", "!unknown or invalid runtime name: kata", "exclude"),
    Case(("--security-opt", "no-new-privileges"), "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
    Case(("--shm-size", "1m"), "df -k /dev/shm | tail -1", ".* 1024 .*"),
    Case(("--sig-proxy=false",), "echo ok", "ok"),
    Case(("--stop-signal", "INT", "--stop-timeout", "1"), "echo ok", "ok"),
    Case(("--storage-opt", "size=1g"), "echo ok", "!size is not supported"),
    Case(("--sysctl", "net.core.somaxconn=77"), "cat /proc/sys/net/core/somaxconn", "77"),
    Case(("--sysctl", "kernel.msgmax=9999"), "cat /proc/sys/kernel/msgmax", "9999"),
    Case(("--sysctl", "net.core.somaxconn=77", "--network", "host"), "echo ok", "!not allowed in host network namespace", f"!{KERNEL}"),
    Case(("--tmpfs", "/t:size=1m"), "df -k /t | tail -1", ".* 1024 .*"),
    Case(("--ulimit", "nofile=100:200"), "ulimit -n", "100"),
    Case(("--user", "7:8"), "id -u; id -g", "7\n8"),
    Case(("--userns", "host"), "cat /proc/self/uid_map", "0 +0 +4294967295", ".*"),
    Case(("--uts", "host"), "hostname", re.escape(os.uname().nodename), f"!{KERNEL}"),
    Case(("--volume", "/anonymous"), "grep -c ' /anonymous ' /proc/mounts", "1"),
    Case(("--volume-driver", "local"), "echo ok", "ok"),
    Case(("--volume-driver", "x"), "echo ok", "!error looking up volume plugin x"),
    Case(("--volumes-from", "t-nobody"), "echo ok", "!No such container: t-nobody"),
    Case(("--workdir", "/tmp/new"), "pwd", "/tmp/new"),
]  # fmt: skip
# What the table has no line for: shown by other tests, or about the client alone.
ELSEWHERE = {
    "blkio-weight-device", "cidfile", "cpu-count", "cpu-percent", "cpu-rt-period", "cpuset-mems", "detach", "detach-keys",
    "device-read-bps", "device-read-iops", "device-write-bps", "disable-content-trust", "env-file", "health-cmd", "health-interval",
    "health-retries", "health-start-interval", "health-start-period", "health-timeout", "help", "interactive", "io-maxbandwidth",
    "io-maxiops", "ip", "ip6", "kernel-memory", "label-file", "link", "name", "network-alias", "restart", "rm", "stop-timeout", "tty",
    "use-api-socket", "hostname",
}  # fmt: skip


def wrong(case: Case, expected: str, done: Result) -> list[str]:
    """One line of the table against what happened: nothing, or what is wrong with it."""
    said = done.err
    bad = [f"{case}: {done} is not {expected!r}"]
    if "Traceback" in said:
        return bad
    if expected.startswith("!"):
        return [] if done.code in (1, 125, 127) and re.search(expected[1:], said) else bad
    if expected.startswith("?"):
        if not re.search(expected[1:], said):
            return bad
        expected = "ok"
    return [] if done.code == 0 and re.fullmatch(expected, done.out.strip()) else bad


def test_the_table_is_whole() -> None:
    """Every flag that Docker's command line has is in the table or in ELSEWHERE."""
    if DOCKER is None:
        pytest.skip("no docker command line is installed")
    shown = subprocess.run([DOCKER, "run", "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", shown, re.MULTILINE))
    ours = {word.lstrip("-").partition("=")[0] for case in CASES for word in case.flags if word.startswith("--")}
    assert len(flags) > 90
    assert flags - ours - ELSEWHERE == set()


def test_bothys_command_line(settled: TestEngine) -> None:
    found = [(case, settled("run", "--rm", *case.flags, "busybox", *command(case))) for case in CASES]
    assert [text for case, done in found for text in wrong(case, case.out, done)] == []


def command(case: Case) -> list[str]:
    return ["-c", case.script] if "--entrypoint" in case.flags else ["sh", "-c", case.script]


@pytest.mark.skipif(DOCKER is None, reason="no docker command line is installed")
def test_dockers_command_line(settled: TestEngine) -> None:
    """What the client itself refuses is refused too."""
    assert DOCKER is not None
    env = {**os.environ, "DOCKER_HOST": f"unix://{settled.run_folder}/bothy.sock", "DOCKER_CONFIG": str(settled.run_folder)}
    bad = []
    for case in CASES:
        done = subprocess.run(
            [DOCKER, "run", "--rm", *case.flags, "busybox", *command(case)], env=env, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        assert "Unable to find image" not in done.stderr, case
        bad += wrong(case, case.out, Result(done.returncode, done.stdout, done.stderr))
    assert bad == []


@pytest.mark.qemu
def test_machines(settled: TestEngine, machines: None) -> None:
    """Machines: whatever is refused is refused at once, the rest in one go, for each costs a start."""
    together: list[Case] = []
    bad: list[str] = []
    for case in CASES:
        expected = case.machine or case.out
        if expected == "exclude" or case.flags[0] in ("--entrypoint", "--platform", "--cpus"):
            continue
        if expected.startswith("!"):
            bad += wrong(case, expected, settled("run", "--rm", "--vm", *case.flags, "busybox", *command(case)))
        elif case.flags[0] in (
            "--user",
            "--network",
            "--read-only",
            "--attach",
            "--cap-drop",
            "--init",
            "--log-driver",
            "--memory",
            "--oom-kill-disable",
            "--privileged",
        ):
            continue  # they do not go together with the others; other tests have them over both walls
        else:
            together.append(case)
    flags = [word for case in together for word in case.flags]
    script = "; echo ---; ".join(case.script for case in together)
    done = settled("run", "--rm", "--vm", *flags, "busybox", "sh", "-c", script)
    assert done.code == 0, done.err
    for case, out in zip(together, done.out.split("---\n"), strict=True):
        bad += wrong(case, case.machine or case.out, Result(0, out, done.err))
    assert bad == []


def test_the_id_file(bothy: Walled, tmp_path: Path) -> None:
    file = tmp_path / "id"
    bothy("run", "-d", "--cidfile", str(file), "--name", "t-cid", "busybox", "true").ok()
    assert file.read_text() == bothy.engine.inspect("t-cid")["Id"]
    done = bothy("run", "--rm", "--cidfile", str(file), "busybox", "true")
    assert (done.code, "exists already" in done.err) == (125, True)
    bothy("rm", "-f", "t-cid").ok()


def test_volumes_from(bothy: Walled, tmp_path: Path) -> None:
    """Over both walls at once: a machine and a container have the volumes of the same one."""
    (tmp_path / "file").write_text("bound")
    bothy.engine("create", "--name", "t-from", "-v", "/kept", "-v", f"{tmp_path}:/bound", "busybox", "true").ok()
    script = "cat /bound/file; echo made > /kept/new"
    assert bothy("run", "--rm", "--volumes-from", "t-from", "busybox", "sh", "-c", script).ok().out == "bound"
    done = bothy("run", "--rm", "--volumes-from", "t-from:ro", "busybox", "sh", "-c", "cat /kept/new; touch /kept/x /bound/x")
    assert (done.code, done.out) == (1, "made\n")
    assert bothy("run", "--rm", "--volumes-from", "t-from:zz", "busybox", "true").code == 125
    assert json.loads(bothy.engine("volume", "ls", "--format", "json").ok().out.splitlines()[0])["Name"]
    bothy.engine("rm", "-v", "t-from").ok()


def test_a_folder_of_devices_and_their_permissions(settled: TestEngine, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("one", "sub/two"):
        os.mknod(tmp_path / name, 0o20666, os.makedev(1, 3))
    (tmp_path / "plain").write_text("not a device")
    script = "cd /dev/many; find . -type c | sort; test -e plain || echo no plain; echo x > one && echo written"
    out = settled("run", "--rm", "--device", f"{tmp_path}:/dev/many", "busybox", "sh", "-c", script).ok().out
    assert out == "./one\n./sub/two\nno plain\nwritten\n"


def test_devices_by_rule(settled: TestEngine) -> None:
    """Nothing but the rule lets a node that was made inside be opened (fuse: 10:229, or whatever misc device the host has)."""
    number = next(
        line.split()[0] for line in Path("/proc/misc").read_text().splitlines() if Path(f"/dev/{line.split()[1]}").exists()
    )
    script = f"mknod /n c 10 {number}; cat </dev/null >/dev/null 3</n && echo opened"
    flags = ("--privileged=false", "--userns", "host", "--cap-add", "MKNOD")
    refused = settled("run", "--rm", *flags, "busybox", "sh", "-c", script)
    assert "opened" not in refused.out
    assert "not permitted" in refused.err
    allowed = settled("run", "--rm", *flags, "--device-cgroup-rule", f"c 10:{number} rwm", "busybox", "sh", "-c", script)
    assert "not permitted" not in allowed.err


def test_block_rates_reach_the_control_group(settled: TestEngine) -> None:
    if not BLOCK:
        pytest.fail("this host has no block device")
    flags = ("--device-read-bps", f"{BLOCK}:1mb", "--device-write-bps", f"{BLOCK}:2mb", "--device-read-iops", f"{BLOCK}:300")
    settled("run", "-d", "--name", "t-rates", *flags, "busybox", "sleep", "300").ok()
    script = "cat /sys/fs/cgroup/blkio/blkio.throttle.*_device /sys/fs/cgroup/io.max 2>/dev/null; true"
    out = settled("exec", "t-rates", "sh", "-c", script).ok().out
    assert all(number in out for number in ("1048576", "2097152", "300"))
    settled("rm", "-f", "t-rates").ok()


def test_a_kill_with_another_signal_is_no_stop(settled: TestEngine) -> None:
    """Only SIGKILL and its stop signal are its user's wish to have it down."""
    script = "trap 'echo heard; exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    settled("run", "-d", "--restart", "always", "--name", "t-usr", "busybox", "sh", "-c", script).ok()
    await_(lambda: "ready" in settled("logs", "t-usr").out, "the trap")
    settled("kill", "-s", "USR1", "t-usr").ok()
    await_(lambda: settled.inspect("t-usr")["RestartCount"] == 1, "its return")
    settled("rm", "-f", "t-usr").ok()
