"""Programs in a clone: what they get, what they say, how they end."""

from __future__ import annotations

import errno
import signal
import time
from dataclasses import replace

import pytest

from bothy.errors import StageError
from bothy.machines import wire
from bothy.oci.runtime import Box, Mount, Rlimit, User
from tests.support.machines import Machines

pytestmark = pytest.mark.qemu


def test_a_program_of_the_image_runs_on_a_kernel_of_its_own(machines: Machines) -> None:
    done = machines.shell("cat /proc/version; echo to stderr >&2; exit 7")
    assert (done.code, done.out[2]) == (7, b"to stderr\n")
    with open("/proc/version") as version:
        assert done.text != version.read()


def test_failures_are_those_of_a_container(machines: Machines) -> None:
    missing = machines.run("nosuch").error
    assert isinstance(missing, StageError)
    assert (missing.stage, missing.errno) == ("exec", errno.ENOENT)
    folder = machines.run("/bin").error
    assert isinstance(folder, StageError)
    assert (folder.stage, folder.errno) == ("exec", errno.EACCES)
    nobody = machines.run("true", process={"user": User(username="nobody-here")}).error
    assert isinstance(nobody, StageError)
    assert nobody.stage == "user"


def test_user_working_folder_environment_and_limits(machines: Machines) -> None:
    process = {"user": User(username="worker"), "cwd": "/made/for/it", "rlimits": [Rlimit("RLIMIT_NOFILE", 100, 200)]}
    done = machines.shell("id -u; pwd; echo $HOME; ulimit -n; grep CapEff /proc/self/status", process=process)
    assert done.text.split() == ["1000", "/made/for/it", "/home/worker", "100", "CapEff:", "0000000000000000"]


def test_capabilities_are_dockers_defaults(machines: Machines) -> None:
    done = machines.run("grep", "-E", "CapEff|CapBnd|SigIgn|NoNewPrivs", "/proc/self/status")
    assert done.text.split() == [
        "SigIgn:",
        "0000000000000000",
        "CapEff:",
        "00000000a80425fb",
        "CapBnd:",
        "00000000a80425fb",
        "NoNewPrivs:",
        "0",
    ]


def test_stdin_goes_in_and_ends(machines: Machines) -> None:
    machine = machines.machine(machines.plan("wc", "-c"), stdin=True)
    process = machine.start().process
    assert process is not None
    data, sent = bytes(1_000_000), 0
    while sent < len(data):
        taken = process.write(data[sent:])
        sent += taken
        if sent < len(data):
            drains = machine.main.drains
            machine.until(lambda seen=drains: machine.main.drains > seen)  # type: ignore[misc]
    process.close_input()
    machine.until(lambda: machine.main.over)
    assert machine.main.text.strip() == "1000000"


def test_without_stdin_there_is_an_empty_one(machines: Machines) -> None:
    assert machines.run("cat").code == 0


def test_a_slow_client_holds_up_its_own_program_and_no_other(machines: Machines) -> None:
    machine = machines.machine(machines.plan("sh", "-c", "head -c 3000000 /dev/zero; echo end >&2"))
    process = machine.start().process
    assert process is not None
    process.hold(held=True)
    other = machine.exec("echo", "unhindered")
    machine.until(lambda: other.over)
    assert other.text == "unhindered\n"
    assert len(machine.main.out[1]) <= wire.WINDOW
    process.hold(held=False)
    machine.until(lambda: machine.main.over)
    assert len(machine.main.out[1]) == 3_000_000
    assert machine.main.out[2] == b"end\n"


def test_exec_beside_the_main_program(machines: Machines) -> None:
    machine = machines.machine(machines.plan("sleep", "60"))
    machine.start()
    one = machine.exec("sh", "-c", "echo one; exit 3")
    two = machine.exec("cat", stdin=True)
    assert two.process is not None
    two.process.write(b"two")
    two.process.close_input()
    machine.until(lambda: one.over and two.over)
    assert (one.code, one.text, two.code, two.text) == (3, "one\n", 0, "two")
    failed = machine.exec("nosuch")
    assert isinstance(failed.error, StageError)
    assert failed.error.errno == errno.ENOENT


def test_execs_end_with_the_main_program(machines: Machines) -> None:
    machine = machines.machine(machines.plan("sleep", "60"))
    process = machine.start().process
    other = machine.exec("sleep", "60")
    assert process is not None
    process.signal(signal.SIGKILL)
    machine.until(lambda: machine.main.over)
    assert machine.main.code == other.code == 137


def test_signals_and_what_a_shell_calls_them(machines: Machines) -> None:
    machine = machines.machine(
        machines.plan("sh", "-c", "trap 'echo caught; exit 9' USR1; echo set; while true; do sleep 0.1; done")
    )
    process = machine.start().process
    assert process is not None
    machine.until(lambda: "set" in machine.main.text)
    process.signal(signal.SIGUSR1)
    machine.until(lambda: machine.main.over)
    assert (machine.main.code, machine.main.text) == (9, "set\ncaught\n")
    with pytest.raises(ProcessLookupError):
        process.signal(signal.SIGTERM)


def test_a_signal_that_is_not_caught(machines: Machines) -> None:
    assert machines.shell("kill -TERM $$").code == 128 + signal.SIGTERM


def test_a_terminal_has_a_size_and_takes_another(machines: Machines) -> None:
    process = {"terminal": True, "console_size": Box(30, 90)}
    machine = machines.machine(
        machines.plan(
            "sh", "-c", "stty size; tty; trap 'stty size; exit 5' WINCH; echo set; while true; do sleep 0.1; done", process=process
        ),
        stdin=True,
    )
    main = machine.start().process
    assert main is not None
    machine.until(lambda: "set" in machine.main.text)
    assert machine.main.text.split() == ["30", "90", "/dev/pts/0", "set"]
    main.resize(31, 91)
    machine.until(lambda: machine.main.over)
    assert machine.main.text.split()[-2:] == ["31", "91"]
    assert machine.main.code == 5
    assert machine.main.out[2] == b""


def test_pause_stops_and_resume_goes_on_with_the_clock_right(machines: Machines) -> None:
    machine = machines.machine(machines.plan("sh", "-c", "while true; do date +%s; sleep 0.1; done"))
    machine.start()
    machine.until(lambda: machine.main.text.count("\n") > 1)
    assert machine.ask(machine.wall.pause) == {}
    seen, paused = len(machine.main.out[1]), time.monotonic()
    machine.until(lambda: time.monotonic() > paused + 1.5)
    assert len(machine.main.out[1]) - seen < 100
    assert machine.ask(machine.wall.resume) == {}
    lines = machine.main.text.count("\n")
    machine.until(lambda: machine.main.text.count("\n") > lines + 3)
    assert abs(int(machine.main.text.split()[-1]) - time.time()) < 1.5


def test_top_and_stats(machines: Machines) -> None:
    machine = machines.machine(machines.plan("sleep", "60"))
    machine.start()
    table = machine.ask(lambda done: machine.wall.top("-o pid,args", done))
    assert table["titles"] == ["PID", "COMMAND"]
    assert [row[1] for row in table["processes"]] == ["sleep 60"]
    stats = machine.ask(machine.wall.stats)
    assert 0 < stats["memory_stats"]["usage"] < stats["memory_stats"]["limit"] < 192 << 20
    assert stats["pids_stats"]["current"] == 1
    assert stats["cpu_stats"]["online_cpus"] == 1


def test_the_kernel_kills_for_want_of_memory(machines: Machines) -> None:
    plan = machines.plan("sleep", "60")
    linux = replace(plan.spec.linux, sysctl={"vm.overcommit_memory": "1"})
    machine = machines.machine(replace(plan, spec=replace(plan.spec, linux=linux)))
    machine.start()
    hungry = machine.exec("dd", "if=/dev/zero", "of=/dev/null", "bs=400M", "count=1")
    machine.until(lambda: hungry.over)
    assert hungry.code == 137
    assert machine.wall.oom_count() >= 1


def test_a_limit_of_processes(machines: Machines) -> None:
    plan = machines.plan("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 3 & done; echo all")
    resources = replace(plan.spec.linux.resources, pids=type("Limit", (), {"limit": 4})())
    spec = replace(plan.spec, linux=replace(plan.spec.linux, resources=resources))
    assert "all" not in machines.machine(replace(plan, spec=spec)).run().text


def test_a_tmpfs_and_a_sysctl(machines: Machines) -> None:
    plan = machines.plan("sh", "-c", "grep ' /small ' /proc/mounts; cat /proc/sys/net/core/somaxconn; mount | grep shm")
    mounts = [Mount("/small", "tmpfs", "tmpfs", ["size=1m", "ro"]), Mount("/dev/shm", "tmpfs", "shm", ["size=2097152", "nosuid"])]
    spec = replace(plan.spec, mounts=mounts, linux=replace(plan.spec.linux, sysctl={"net.core.somaxconn": "77"}))
    text = machines.machine(replace(plan, spec=spec)).run().text
    assert "tmpfs /small tmpfs ro" in text
    assert "size=1024k" in text
    assert "\n77\n" in text
    assert "size=2048k" in text


def test_a_read_only_root(machines: Machines) -> None:
    plan = machines.plan("sh", "-c", "touch /x || echo refused; touch /dev/shm/x && echo but there")
    plan = replace(plan, spec=replace(plan.spec, root=replace(plan.spec.root, readonly=True)))
    assert machines.machine(plan).run().text == "refused\nbut there\n"


def test_kill_ends_everything(machines: Machines) -> None:
    machine = machines.machine(machines.plan("sleep", "60"))
    machine.start()
    machine.wall.kill()
    machine.until(lambda: machine.main.over)
    assert machine.main.code == 137
    assert machine.wall.error == ""


def test_a_program_that_switches_the_machine_off(machines: Machines) -> None:
    done = machines.shell("echo o > /proc/sysrq-trigger; sleep 30", process={"capabilities": None})
    assert done.code == 0
