"""Flags of run that change what the program finds or how it ends, each over both walls."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import Result, await_


def test_values_of_the_environment_are_passed_on(bothy: Walled, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("PASSED\nSPACES= two \nTAKEN=away\nNOT_SET\n")
    bothy.engine.env["PASSED"] = "from outside"
    try:
        out = (
            bothy("run", "--rm", "--env-file", str(tmp_path / "env"), "-e", "TAKEN", "-e", "PASSED=now", "busybox", "env").ok().out
        )
        again = bothy("run", "--rm", "-e", "PASSED", "busybox", "sh", "-c", "echo $PASSED").ok().line
    finally:
        del bothy.engine.env["PASSED"]
    lines = out.splitlines()
    assert "PASSED=now" in lines
    assert "SPACES= two " in lines
    assert not any(line.startswith(("NOT_SET", "TAKEN")) for line in lines)
    assert again == "from outside"


def test_groups_are_added(bothy: Walled) -> None:
    assert bothy("run", "--rm", "-u", "5:6", "--group-add", "77", "busybox", "id", "-G").ok().line == "6 77"


def test_tmpfs_takes_options(bothy: Walled) -> None:
    script = "grep ' /t ' /proc/mounts; echo echo ran > /t/x; chmod +x /t/x; /t/x || echo refused"
    out = bothy("run", "--rm", "--tmpfs", "/t:size=3m,mode=700,noexec", "busybox", "sh", "-c", script).ok().out
    assert "size=3072k" in out
    assert "mode=700" in out
    assert out.endswith("refused\n")


def test_a_limit_above_the_hosts_is_clamped_and_told(bothy: Walled) -> None:
    """Where root lacks CAP_SYS_RESOURCE a container's limit can not be raised. A machine has limits of its own."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with open("/proc/self/status") as status:
        may = int(next(line.split()[1] for line in status if line.startswith("CapEff")), 16) >> 24 & 1
    asked = hard + 1000
    done = bothy("run", "--rm", "--ulimit", f"nofile=64:{asked}", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn").ok()
    if bothy.wall == "vm" or may:
        assert (done.out, done.err) == (f"64\n{asked}\n", "")
    else:
        assert done.out == f"64\n{hard}\n"
        assert done.err == f"bothy: warning: ulimit nofile is clamped to {hard}, bothy may not raise it on this host\n"


def test_labels_and_label_file(bothy: Walled, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("one=1\ntwo=2 3\n")
    bothy("create", "--name", "f-label", "--label-file", str(tmp_path / "labels"), "-l", "two=4", "-l", "bare", "busybox").ok()
    assert bothy.engine.inspect("f-label")["Config"]["Labels"] == {"one": "1", "two": "4", "bare": ""}
    bothy("rm", "f-label").ok()


def test_stop_timeout_is_the_default_of_stop(bothy: Walled) -> None:
    script = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done"
    bothy("run", "-d", "--name", "f-slow", "--stop-timeout", "1", "busybox", "sh", "-c", script).ok()
    await_(lambda: "ready" in bothy("logs", "f-slow").out, "the trap", timeout=60)
    began = time.monotonic()
    bothy("stop", "f-slow").ok()
    assert 0.9 < time.monotonic() - began < 8
    assert bothy("logs", "f-slow").out == "ready\nheard\n"
    assert bothy.engine.inspect("f-slow")["State"]["ExitCode"] == 137
    bothy("rm", "f-slow").ok()


@pytest.mark.parametrize(("policy", "image", "code"), [("missing", "busybox", 0), ("never", "busybox", 0), ("never", "f/nope", 125),
                                                       ("missing", "f/nope", 125), ("always", "f/nope", 125), ("bogus", "busybox", 125)])  # fmt: skip
def test_pull(bothy: Walled, policy: str, image: str, code: int) -> None:
    done = bothy("run", "--rm", "--pull", policy, image, "true")
    assert done.code == code, done.err
    if code:
        assert (policy if policy == "bogus" else image) in done.err
        assert "hint: " in done.err


def test_privileged_may_mount_and_sees_devices(bothy: Walled) -> None:
    script = "mkdir /m; mount -t tmpfs x /m && grep -c ' /m tmpfs' /proc/mounts; ls /dev | wc -l"
    mounts, devices = bothy("run", "--rm", "--privileged", "busybox", "sh", "-c", script).ok().out.split()
    assert mounts == "1"
    if bothy.wall == "container":  # a machine's devices are its own, it always sees them all
        assert int(devices) > int(bothy("run", "--rm", "busybox", "sh", "-c", "ls /dev | wc -l").ok().line)


def test_a_seccomp_profile_from_a_file(bothy: Walled, tmp_path: Path) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]}
    (tmp_path / "profile").write_text(json.dumps(profile))
    done = bothy("run", "--rm", "--security-opt", f"seccomp={tmp_path}/profile", "busybox", "mkdir", "/x")
    if bothy.wall == "vm":
        assert (done.code, "seccomp profile is not applied" in done.err) == (0, True)
    else:
        assert (done.code, "Function not implemented" in done.err) == (1, True)


@pytest.mark.parametrize("text", ["{", '{"defaultAction": "NOPE"}', ""])
def test_a_bad_seccomp_profile_is_told(settled: object, engine: object, tmp_path: Path, text: str) -> None:
    (tmp_path / "profile").write_text(text)
    done = Walled(engine, "container")("run", "--rm", "--security-opt", f"seccomp={tmp_path}/profile", "busybox", "true")  # type: ignore[arg-type]
    assert done.code == 125
    assert "seccomp" in done.err
    assert "Traceback" not in done.err


def test_no_new_privileges_holds_for_execs_too(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "f-nnp", "--security-opt", "no-new-privileges:true", "busybox", "sleep", "300").ok()
    assert "NoNewPrivs:\t1" in bothy("exec", "f-nnp", "cat", "/proc/self/status").ok().out
    bothy("rm", "-f", "f-nnp").ok()


def test_exec_flags(bothy: Walled, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FROM=file\n")
    bothy("run", "-d", "--name", "f-exec", "-w", "/tmp", "-e", "BASE=1", "busybox", "sleep", "300").ok()
    script = "echo $FROM $BASE $(pwd) $(id -u):$(id -g); grep CapEff /proc/self/status"
    plain = bothy("exec", "--env-file", str(tmp_path / "env"), "-u", "3:4", "f-exec", "sh", "-c", script).ok().out
    assert plain == "file 1 /tmp 3:4\nCapEff:\t0000000000000000\n"
    full = bothy("exec", "--privileged", "f-exec", "grep", "CapEff", "/proc/self/status").ok().line
    with open("/proc/self/status") as status:
        ours = int(next(line.split()[1] for line in status if line.startswith("CapBnd")), 16)
    assert int(full.split()[1], 16) & ours == ours
    bothy("rm", "-f", "f-exec").ok()


def test_memory_is_what_was_asked_for(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "f-mem", "--memory", "256m", "busybox", "sleep", "300").ok()
    if bothy.wall == "vm":
        total = int(bothy("exec", "f-mem", "grep", "MemTotal", "/proc/meminfo").ok().out.split()[1])
        assert 256 << 10 <= total < 384 << 10  # what its programs may have, and what the guest needs itself
    else:
        script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
        assert bothy("exec", "f-mem", "sh", "-c", script).ok().line == str(256 << 20)
    bothy("rm", "-f", "f-mem").ok()


def test_four_processors_work_at_the_same_time(bothy: Walled) -> None:
    """Also on a host with fewer: a machine's processors are threads. A container is told that the host has not so many."""
    count = 4 if bothy.wall == "vm" else min(4, os.cpu_count() or 1)
    script = "for c in $(seq $(nproc)); do (grep Cpus_allowed_list /proc/self/status; exec yes) | head -1 & done; wait; nproc"
    out = bothy("run", "--rm", "--cpus", str(count), "busybox", "sh", "-c", script, timeout=300).ok().out.splitlines()
    assert out[-1] == str(count if bothy.wall == "vm" else os.cpu_count())
    if bothy.wall == "container" and (os.cpu_count() or 1) < 64:
        done = bothy("run", "--rm", "--cpus", "64", "busybox", "true")
        assert (done.code, "CPUs available" in done.err) == (125, True)


def test_groups_by_name_and_number(bothy: Walled) -> None:
    """Of the image's own file; also for another user, and for execs."""
    assert bothy("run", "--rm", "--group-add", "disk", "--group-add", "777", "busybox", "id", "-G").ok().line.split()[-2:] == [
        "6",
        "777",
    ]
    out = bothy("run", "--rm", "-u", "1000:1000", "--group-add", "tty", "busybox", "id", "-G").ok().line
    assert set(out.split()) == {"1000", "5"}
    bothy("run", "-d", "--name", "t-groups", "--group-add", "adm", "busybox", "sleep", "300").ok()
    assert "4" in bothy("exec", "-u", "12:12", "t-groups", "id", "-G").ok().line.split()
    bothy("rm", "-f", "t-groups").ok()
    done = bothy("run", "--rm", "--group-add", "nothing", "busybox", "true")
    assert done.code == 125
    assert "unable to find group nothing" in done.err


def test_platform(bothy: Walled) -> None:
    ours = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    other = "arm64" if ours == "amd64" else "amd64"
    for word in (f"linux/{ours}", ours, "linux"):
        assert bothy("run", "--rm", "--platform", word, "busybox", "echo", "runs").ok() == Result(0, "runs\n", "")
    done = bothy("run", "--rm", "--platform", f"linux/{other}", "busybox", "true")
    assert done.code == 125
    assert f"image busybox was found but it is for linux/{ours}, not for linux/{other}" in done.err
    assert "invalid platform" in bothy("create", "--platform", "a/b/c/d", "busybox").err


def test_what_no_machine_can_have_is_refused_at_once(bothy: Walled) -> None:
    flags = (("--memory", "90000g"), ("--cpus", "400")) if bothy.wall == "vm" else (("--cpus", "400"),)
    for flag in flags:
        began = time.monotonic()
        done = bothy("run", "--rm", *flag, "busybox", "true")
        assert (done.code, done.err.startswith("bothy: ")) == (125, True)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--stop-signal", "BOGUS"), "BOGUS"),
        (("--stop-timeout", "x"), "--stop-timeout"),
        (("-w", "relative"), "relative"),
        (("-h", "bad host!"), "bad host!"),
        (("--name", "bad name"), "bad name"),
        (("-e", "=x"), "=x"),
        (("--env-file", "/no/such/file"), "/no/such/file"),
        (("--tmpfs", "relative"), "relative"),
        (("--shm-size", "-1"), "--shm-size"),
        (("--ulimit", "nofile=5:3"), "nofile=5:3"),
        (("--mount", "type=bind,source=/no/such,target=/d"), "/no/such"),
        (("-v", "/tmp:/"), "'/'"),
        (("--cap-drop", "NOPE"), "NOPE"),
        (("--memory", "64m", "--memory-swap", "32m"), "swap"),
        (("--log-opt", "max-size=x"), "max-size"),
        (("--detach-keys", "ctrl-"), "ctrl-"),
        (("--rm", "--restart", "always"), "--rm"),
    ],
)
def test_impossible_flags_are_told(bothy: Walled, flags: tuple[str, ...], told: str) -> None:
    done = bothy("run", "--rm", *flags, "busybox", "true")
    assert done.code == 125, done
    assert done.err.startswith("bothy: ")
    assert told in done.err
    assert "Traceback" not in done.err


def test_entrypoint_of_nothing_and_arguments(bothy: Walled) -> None:
    assert bothy("run", "--rm", "--entrypoint", "", "busybox", "echo", "plain").ok().line == "plain"
    done = bothy("run", "--rm", "--entrypoint", "no-such", "busybox", "x")
    assert (done.code, "no-such" in done.err) == (127, True)


def test_hosts_and_resolver_files(bothy: Walled) -> None:
    words = ("--add-host", "friend:198.51.100.7", "--dns", "192.0.2.53", "--dns-search", "a.example", "--dns-option", "ndots:3")
    out = bothy("run", "--rm", "-h", "me", *words, "busybox", "sh", "-c", "cat /etc/hosts /etc/resolv.conf; hostname -i").ok().out
    lines = [line.split() for line in out.splitlines()]
    assert ["127.0.0.1", "localhost"] in lines
    assert ["198.51.100.7", "friend"] in lines
    assert ["nameserver", "192.0.2.53"] not in lines, "that one is asked by the engine's own"
    assert ["search", "a.example"] in lines
    assert ["options", "ndots:3"] in lines
    address = lines[-1][0]
    assert [address, "me"] in lines


def test_names_are_asked_for_at_the_gateway(bothy: Walled) -> None:
    """The files can be written, and are the workload's own."""
    script = "grep -e nameserver -e ndots /etc/resolv.conf; echo '192.0.2.1 mine' >> /etc/hosts; grep -c mine /etc/hosts; ip route"
    out = bothy("run", "--rm", "busybox", "sh", "-c", script).ok().out.splitlines()
    gateway = next(line.split()[2] for line in out if line.startswith("default"))
    assert out[:3] == [f"nameserver {gateway}", "options ndots:0", "1"]
    assert "mine" not in Path("/etc/hosts").read_text()


def test_the_pid_is_one_of_the_hosts(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "f-pid", "busybox", "sleep", "300").ok()
    pid = bothy.engine.inspect("f-pid")["State"]["Pid"]
    assert Path(f"/proc/{pid}/comm").read_text().strip() == ("qemu-system-x86" if bothy.wall == "vm" else "sleep")
    assert pid in bothy.engine.processes()
    bothy("rm", "-f", "f-pid").ok()


def test_the_program_is_pid_1_or_its_child(bothy: Walled) -> None:
    out = bothy("run", "--rm", "busybox", "sh", "-c", "echo $$ $PPID; cat /proc/1/comm; true").ok().out.split()
    if bothy.wall == "vm":
        assert out[1:] == ["1", "bothy-agent"]
        assert out[0] != "1"
    else:
        assert out == ["1", "0", "sh"]
    init = bothy("run", "--rm", "--init", "busybox", "sh", "-c", "echo $PPID").ok().line
    assert init == "1"


def test_logs_rotate_by_default(bothy: Walled) -> None:
    """30 MB of one default log are kept at most, whatever is written."""
    script = "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 34000000"
    bothy("run", "-d", "--name", "f-log", "busybox", "sh", "-c", script).ok()
    assert bothy("wait", "f-log", timeout=240).ok().line == "0"
    path = Path(bothy.engine.inspect("f-log")["LogPath"])
    files = list(path.parent.glob("container.log*"))
    assert 1 < len(files) <= 3
    assert sum(file.stat().st_size for file in files) < 31 << 20
    assert bothy("logs", "--tail", "1", "f-log").ok().out.startswith("0123456789")
    bothy("rm", "f-log").ok()


def test_logs_since_and_until_a_moment(bothy: Walled) -> None:
    bothy("run", "--name", "f-since", "busybox", "sh", "-c", "echo one; sleep 0.2; echo two; sleep 0.2; echo three").ok()
    stamps = [line.split()[0] for line in bothy("logs", "-t", "f-since").ok().out.splitlines()]
    assert stamps == sorted(stamps)
    assert bothy("logs", "--since", stamps[1], "f-since").ok().out == "two\nthree\n"
    assert bothy("logs", "--until", stamps[1], "f-since").ok().out == "one\ntwo\n"
    assert bothy("logs", "--since", stamps[1], "--until", stamps[1], "f-since").ok().out == "two\n"
    assert bothy("logs", "--since", "10m", "--tail", "1", "f-since").ok().out == "three\n"
    assert bothy("logs", "--tail", "0", "f-since").ok().out == ""
    done = bothy("logs", "--since", "yesterday", "f-since")
    assert (done.code, "yesterday" in done.err) == (125, True)
    bothy("rm", "f-since").ok()
