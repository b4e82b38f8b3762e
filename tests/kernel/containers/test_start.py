"""A container from start to end: what the program sees, who it is, and how failures are told."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bothy.containers import defaults, seccomp
from bothy.oci.runtime import Device, DeviceRule, Mount, Pids, Resources, Rlimit


def test_a_program_runs_and_its_exit_code_comes_back(rig_of_each_version: Any) -> None:
    result = rig_of_each_version.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n")


def test_killed_by_a_signal(rig: Any) -> None:
    assert rig.run(["sh", "-c", "kill -9 $$"]).code == 0  # process 1 is immune to its own namespace's signals
    assert rig.run(["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code == 137


def test_stdin_and_its_end(rig: Any) -> None:
    assert rig.run(["wc", "-c"], stdin=b"12345").out.strip() == "5"


def test_it_is_alone(rig_of_each_version: Any) -> None:
    result = rig_of_each_version.run(
        ["sh", "-c", "echo $$; ls -d /proc/[0-9]* ; hostname; ip -o link | wc -l; cat /proc/self/cgroup"]
    )
    lines = result.out.splitlines()
    assert lines[0] == "1"
    assert lines[1] == "/proc/1"
    assert "box" in lines
    assert "1" in lines[3:5]
    assert all(line.endswith(":/") for line in lines if line.count(":") >= 2 and ("pids" in line or "0::" in line))


def test_root_is_root_and_owns_its_files(rig: Any) -> None:
    result = rig.run(
        ["sh", "-c", "id -u; stat -c %u:%g / /bin/busybox /dev /dev/null /dev/shm /tmp; echo hi > /new; stat -c %u /new"]
    )
    assert result.out.split() == ["0", *["0:0"] * 6, "0"]
    assert result.code == 0


def test_what_it_writes_belongs_to_host_root_on_disk(rig: Any) -> None:
    plan = rig.plan(["sh", "-c", "echo hi > /new; chown ann:ann /new"])
    assert rig.run_plan(plan).code == 0
    status = os.stat(os.path.join(plan.rootfs.upper, "new"))
    assert (status.st_uid, status.st_gid) == (1000, 1000)


def test_host_ids_are_apart(rig: Any) -> None:
    def body(container: Any, started: Any) -> Any:
        return [os.stat(f"/proc/{started.pid}").st_uid, os.readlink(f"/proc/{started.pid}/ns/user")]

    uid, namespace = rig.keep(rig.plan(["sleep", "60"]), body)
    assert uid == rig.id_base
    assert (namespace != os.readlink("/proc/self/ns/user")) == rig.userns


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("ann", "uid=1000(ann) gid=1000(ann) groups=10(wheel)"),
        ("1000:50", "uid=1000(ann) gid=50(staff)"),
        ("4242:4343", "uid=4242 gid=4343"),
    ],
)
def test_users(rig: Any, user: str, expected: str) -> None:
    assert rig.run(["id"], user=user).out.strip().startswith(expected)


def test_a_user_has_a_home_and_no_capabilities(rig: Any) -> None:
    result = rig.run(
        ["sh", "-c", "echo $HOME; grep CapEff /proc/self/status; touch /root-only || echo no; echo yes > /dev/stdout"], user="ann"
    )
    assert result.out.split() == ["/home/ann", "CapEff:", "0000000000000000", "no", "yes"]


def test_an_unknown_user_fails_at_its_stage(rig: Any) -> None:
    result = rig.run(["true"], user="nobody-here")
    assert result.failure["stage"] == "user"
    assert "unable to find user nobody-here" in result.failure["message"]


def test_the_working_folder_is_made(rig: Any) -> None:
    assert rig.run(["sh", "-c", "pwd; stat -c %u ."], cwd="/data/deep").out.split() == ["/data/deep", "0"]


def test_a_working_folder_that_only_the_user_may_enter(rig: Any, layer: Path) -> None:
    assert rig.run(["pwd"], cwd="/home/ann", user="ann").out == "/home/ann\n"


@pytest.mark.parametrize(
    ("args", "number", "message"),
    [
        (["no-such"], errno.ENOENT, '"no-such": executable file not found in $PATH'),
        (["/no/such"], errno.ENOENT, '"/no/such": no such file or directory'),
        (["/etc/passwd"], errno.EACCES, '"/etc/passwd": permission denied'),
        (["/etc"], errno.EACCES, '"/etc": is a directory: permission denied'),
    ],
)
def test_what_can_not_be_run(rig_of_each_version: Any, args: list[str], number: int, message: str) -> None:
    failure = rig_of_each_version.run(args).failure
    assert (failure["stage"], failure["errno"], failure["message"]) == ("exec", number, message)


def test_a_script_without_its_interpreter_and_one_without_a_first_line(rig: Any) -> None:
    plan = rig.plan(["/script"])
    script = Path(plan.rootfs.upper) / "script"
    script.write_text("#!/no/interpreter\n")
    script.chmod(0o755)
    assert rig.run_plan(plan).failure["errno"] == errno.ENOENT
    script.write_text("echo hi\n")
    assert rig.run_plan(plan).failure["errno"] == errno.ENOEXEC


def test_default_capabilities(rig: Any) -> None:
    result = rig.run(["grep", "-E", "Cap(Inh|Prm|Eff|Bnd|Amb)", "/proc/self/status"])
    assert result.out.split()[1::2] == ["0000000000000000", *["00000000a80425fb"] * 3, "0000000000000000"]


def test_no_new_privileges(rig: Any, tmp_path: Path) -> None:
    program = seccomp.compile(None, defaults.CAPABILITIES, tmp_path)
    for user in ("", "ann"):
        result = rig.run(
            ["grep", "-E", "NoNewPrivs|Seccomp:", "/proc/self/status"], no_new_privileges=True, seccomp=program, user=user
        )
        assert result.out.split()[1::2] == ["1", "2"]


def test_seccomp(rig: Any, tmp_path: Path) -> None:
    program = seccomp.compile(None, ["CAP_SYS_CHROOT"], tmp_path)
    script = "grep Seccomp: /proc/self/status; mount -t tmpfs x /tmp 2>&1; id -u"
    assert rig.run(["sh", "-c", script], seccomp=program).out.split() == [
        "Seccomp:", "2", "mount:", "permission", "denied", "(are", "you", "root?)", "0",
    ]  # fmt: skip


def test_masked_and_readonly_paths(rig: Any) -> None:
    script = (
        "ls /sys/firmware; wc -c < /proc/keys; wc -c < /proc/timer_list; (echo 1 > /proc/sys/kernel/panic) 2>&1; touch /sys/x 2>&1"
    )
    lines = rig.run(["sh", "-c", script]).out.splitlines()
    assert lines[:2] == ["0", "0"]
    assert len([line for line in lines[2:] if "Read-only file system" in line]) == 2


@pytest.mark.parametrize("userns", [True], ids=["userns"])
def test_what_was_made_for_it_can_not_be_undone(rig: Any) -> None:
    """Even by one that may mount: mounts that came into its user namespace from outside are locked."""
    script = "for p in /proc/keys /proc/sys /sys/firmware; do umount $p && echo undone; done; mount -o remount,rw / && echo undone; echo end"
    caps, _ = defaults.capabilities(["SYS_ADMIN"])
    result = rig.run(["sh", "-c", script + "; mount -t tmpfs mine /tmp && echo may mount"], caps=caps, readonly=True)
    assert result.out.splitlines() == ["end", "may mount"]


def test_devices_that_are_there(rig_of_each_version: Any) -> None:
    script = (
        "echo x > /dev/null; head -c4 /dev/zero | wc -c; head -c4 /dev/urandom | wc -c; readlink /dev/ptmx; (echo > /dev/full) 2>&1"
    )
    out = rig_of_each_version.run(["sh", "-c", script], user="ann").out
    assert out.split()[:3] == ["4", "4", "pts/ptmx"]
    assert "No space left" in out


def test_devices_that_were_asked_for_and_those_that_were_not(rig_of_each_version: Any) -> None:
    tun = [Device("/dev/net/tun", "c", 10, 200, 0o666), Device("/dev/kmsg", "c", 1, 11, 0o666)]
    resources = Resources(devices=[DeviceRule(allow=True, type="c", major=10, minor=200)])
    script = "(: < /dev/net/tun) && echo yes; (: < /dev/kmsg) || echo no; stat -c %a /dev/net/tun"
    result = rig_of_each_version.run(["sh", "-c", script], devices=tun, resources=resources)
    assert result.out.split() == ["yes", "no", "666"]


def test_a_read_only_root(rig: Any) -> None:
    script = "touch /x 2>&1; touch /tmp/y && echo tmp; touch /dev/shm/z && echo shm"
    result = rig.run(["sh", "-c", script], readonly=True, mounts=[Mount("/tmp", "tmpfs", "tmpfs", ["nosuid", "size=1m"])])
    assert "Read-only file system" in result.out
    assert result.out.split()[-2:] == ["tmp", "shm"]


def test_tmpfs(rig: Any) -> None:
    mounts = [
        Mount("/tmp", "tmpfs", "tmpfs", ["noexec", "nosuid", "nodev", "size=65536"]),
        Mount("/mine", "tmpfs", "tmpfs", ["uid=1000", "gid=50", "mode=700"]),
    ]
    script = "stat -c %a:%u:%g /tmp /mine; df -k /tmp | tail -1 | tr -s ' '"
    words = rig.run(["sh", "-c", script], mounts=mounts).out.split()
    assert words[:2] == ["1777:0:0", "700:1000:50"]
    assert words[3] == "64"


def test_shm_size(rig: Any) -> None:
    assert rig.run(["df", "-k", "/dev/shm"], shm_size=1 << 20).out.split()[8] == "1024"


def test_hostname_and_sysctls(rig: Any) -> None:
    sysctl = {"net.ipv4.ip_unprivileged_port_start": "77", "kernel.shmmni": "99", "fs.mqueue.msg_max": "8"}
    script = "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max"
    assert rig.run(["sh", "-c", script], hostname="inside", sysctl=sysctl).out.split() == ["inside", "77", "99", "8"]
    assert Path("/proc/sys/kernel/shmmni").read_text().strip() != "99"


def test_low_ports_and_ping_for_everybody(rig: Any) -> None:
    options = {"sysctl": defaults.sysctls(id_base=rig.id_base), "user": "ann"}
    script = "timeout 0.2 nc -l -p 80 127.0.0.1; echo $?; cat /proc/sys/net/ipv4/ping_group_range"
    words = rig.run(["sh", "-c", script], caps=defaults.capabilities(drop=["ALL"])[0], **options).out.split()
    assert words[0] == "143"  # it listened until its time was up
    assert words[1:] == ["0", "65535" if rig.userns else "2147483647"]


def test_a_sysctl_that_the_kernel_refuses(rig: Any) -> None:
    failure = rig.run(["true"], sysctl={"net.ipv4.ip_forward": "nonsense"}).failure
    assert failure["stage"] == "sysctl"
    assert "net.ipv4.ip_forward=nonsense" in failure["message"]


def test_rlimits_are_set_or_clamped_with_a_warning(rig: Any) -> None:
    result = rig.run(["sh", "-c", "ulimit -n; ulimit -Hn"], rlimits=[Rlimit("RLIMIT_NOFILE", 100, 200)])
    assert (result.out.split(), result.warnings) == (["100", "200"], [])
    result = rig.run(["sh", "-c", "ulimit -n"], rlimits=[Rlimit("RLIMIT_NOFILE", 1 << 20, 1 << 20)])
    assert result.code == 0
    if result.out.strip() != str(1 << 20):
        assert "nofile is clamped" in result.warnings[0]


def test_oom_score(rig: Any) -> None:
    assert rig.run(["cat", "/proc/self/oom_score_adj"], oom_score_adj=500).out.strip() == "500"


def test_the_host_network(rig: Any) -> None:
    result = rig.run(["readlink", "/proc/self/ns/net"], network="host")
    assert result.out.strip() == os.readlink("/proc/self/ns/net")


def test_nothing_of_the_host_is_open(rig: Any) -> None:
    result = rig.run(["sh", "-c", "ls -l /proc/self/fd | wc -l; cat /proc/self/mountinfo"])
    first, *mounts = result.out.splitlines()
    assert first == "5"  # a heading, the three streams, and the folder that is being listed
    assert not any(line.split()[4].startswith(("/work", "/var", "/root")) for line in mounts)


def test_init_reaps_passes_signals_on_and_ends_as_its_child(rig_of_each_version: Any) -> None:
    rig = rig_of_each_version
    script = "sh -c 'sleep 0.05 & exec true'; usleep 150000; ps -o pid,stat,args; exit 5"
    result = rig.run(["sh", "-c", script], init=True)
    assert result.code == 5
    assert " Z" not in result.out
    lines = [line.split(None, 2) for line in result.out.splitlines()[1:]]
    assert lines[0][0] == "1"
    assert lines[0][2].startswith("init")
    assert "python" not in result.out

    def body(container: Any, started: Any) -> Any:
        end = time.monotonic() + 5
        while len(container.pids()) < 3 and time.monotonic() < end:
            time.sleep(0.005)
        container.signal(15)
        return os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])

    assert rig.keep(rig.plan(["sh", "-c", "trap 'exit 9' TERM; sleep 60 & wait"], init=True), body) == 9


def test_init_of_a_user_has_no_privilege(rig: Any) -> None:
    result = rig.run(
        ["sh", "-c", "grep -E '^Cap(Prm|Eff)' /proc/1/status; cat /proc/1/environ; readlink /proc/1/exe || echo no"],
        init=True,
        user="ann",
    )
    assert result.out.split() == ["CapPrm:", "0000000000000000", "CapEff:", "0000000000000000", "no"]
    assert "Permission denied" in result.err


def test_a_failed_exec_under_init(rig: Any) -> None:
    assert rig.run(["no-such"], init=True).failure["errno"] == errno.ENOENT


def test_the_overlay_can_be_volatile_and_then_not(rig: Any) -> None:
    plan = rig.plan(["sh", "-c", "echo x >> /log; wc -l < /log"], volatile=True)
    outs = [rig.run_plan(plan).out.strip(), rig.run_plan(plan).out.strip()]
    outs.append(rig.run_plan(replace(plan, rootfs=replace(plan.rootfs, volatile=False))).out.strip())
    assert outs == ["1", "2", "3"]


def test_many_layers(rig: Any, layer: Path) -> None:
    layers = []
    for number in range(40):
        folder = layer / "layers" / f"{number:064d}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{number}").write_text("")
        layers.append(folder)
    result = rig.run(["sh", "-c", "ls -d /file* | wc -l"], lowers=[*layers, layer / "layers/busybox"])
    assert result.out.strip() == "40"


def test_a_pids_limit_holds(rig: Any) -> None:
    result = rig.run(["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"], resources=Resources(pids=Pids(4)))
    assert "fork" in result.err


@pytest.mark.parametrize(
    ("options", "stage"),
    [
        ({"mounts": [Mount("/x", "bind", "/no/such/source", ["rbind"])]}, "mount"),
        ({"mounts": [Mount("/x", "nofs", "nofs")]}, "mount"),
        ({"mounts": [Mount("/proc/version/x", "tmpfs", "tmpfs")]}, "mount"),
        ({"sysctl": {"kernel.panic": "1"}}, "plan"),
        ({"lowers": [Path("/no/such/layer")]}, "mount"),
        ({"cwd": "/etc/passwd/x"}, "cwd"),
        ({"resources": Resources(devices=[DeviceRule(allow=True, type="c", major=1, minor=3, access="q")])}, "cgroup"),
        ({"rlimits": [Rlimit("RLIMIT_LUCK", 1, 1)]}, "rlimit"),
        ({"seccomp": "/no/such/program"}, "cgroup"),
        ({"seccomp": "/etc/hostname"}, "seccomp"),
    ],
)
def test_a_failure_at_any_stage_says_which_and_leaves_nothing(rig: Any, options: dict[str, Any], stage: str) -> None:
    result = rig.run(["true"], **options)
    assert result.failure, result
    assert result.failure["stage"] == stage
