"""Machines that wait: the next `run --vm` becomes one, and nobody can tell but by the time it takes."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.paths import Paths
from tests.support.engine import TestEngine, await_, kill9
from tests.support.settle import Snapshot, become_subreaper, reap, snapshot

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def spares() -> Iterator[TestEngine]:
    """An engine that keeps a spare machine, with one waiting."""
    become_subreaper()
    root = Path(tempfile.mkdtemp(prefix="bothy-test-", dir="/var/tmp"))
    run = Path(tempfile.mkdtemp(prefix="bothy-test-", dir="/run"))
    engine = TestEngine(root, run, {"BOTHY_SPARES": "1"})
    try:
        engine("image", "bootstrap", "busybox").ok()
        engine("run", "--rm", "--vm", "busybox", "true", timeout=180).ok()
        yield engine
    finally:
        engine.shutdown()


@pytest.fixture
def spare(spares: TestEngine) -> TestEngine:
    """The engine, once a spare is ready."""
    ready(spares)
    return spares


def ready(engine: TestEngine) -> None:
    await_(
        lambda: engine("info", "-f", "{{.MachineSpares}}").out.strip() == "1" or not _nudge(engine), "a spare machine", timeout=60
    )


def _nudge(engine: TestEngine) -> bool:
    """After a restart of the daemon nothing has been started yet that a spare could be like."""
    if not [name for name in engine.processes().values() if name == "bothy-keeper"]:
        engine("run", "--rm", "--vm", "busybox", "true").ok()
    return True


def keeper_ids(engine: TestEngine) -> set[str]:
    return set(os.listdir(engine.run_folder / "keepers"))


def test_a_machine_takes_the_id_of_the_spare_and_works(spare: TestEngine) -> None:
    waiting = keeper_ids(spare)
    ident = (
        spare("run", "-d", "--vm", "--name", "t-one", "--hostname", "one", "busybox", "sh", "-c", "hostname; exec sleep 300")
        .ok()
        .line
    )
    assert {ident} == waiting
    seen = spare.inspect("t-one")["NetworkSettings"]
    out = (
        spare(
            "exec", "t-one", "sh", "-c", "ip -o -4 addr show eth0; ip route; cat /sys/class/net/eth0/address; cat /etc/machine-id"
        )
        .ok()
        .out
    )
    assert f"inet {seen['IPAddress']}/" in out
    assert "169.254" not in out
    assert f"default via {seen['Gateway']}" in out
    assert seen["MacAddress"] in out
    assert ident[:32] in out
    assert spare("logs", "t-one").ok().out == "one\n"
    assert spare("exec", "t-one", "ping", "-c1", "-W5", seen["Gateway"]).code == 0
    spare("rm", "-f", "t-one").ok()


def test_two_in_a_row_differ(spare: TestEngine) -> None:
    script = "cat /etc/machine-id /proc/sys/kernel/random/uuid; date +%s; cat /proc/mounts"
    first = spare("run", "--rm", "--vm", "busybox", "sh", "-c", script).ok().out.splitlines()
    ready(spare)
    second = spare("run", "--rm", "--vm", "busybox", "sh", "-c", script).ok().out.splitlines()
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert 0 <= int(second[2]) - int(first[2]) < 120
    assert first[3:] == second[3:]


def test_same_answers_as_one_from_the_template(spare: TestEngine) -> None:
    assert spare("run", "--rm", "--vm", "busybox", "no-such-program").code == 127
    ready(spare)
    assert spare("run", "--rm", "--vm", "-i", "busybox", "cat", stdin="through").ok().out == "through"
    ready(spare)
    done = spare("run", "--name", "t-keep", "--vm", "busybox", "sh", "-c", "echo x >> /count; wc -l < /count")
    assert done.ok().line == "1"
    assert spare("start", "-a", "t-keep").ok().line == "2"
    spare("rm", "t-keep").ok()


def test_one_that_does_not_fit_is_let_go(spare: TestEngine, tmp_path: Path) -> None:
    assert spare("run", "--rm", "--vm", "--cpus", "0.5", "busybox", "echo", "slow").ok().out == "slow\n"
    ready(spare)
    (tmp_path / "file").write_text("shared\n")
    assert spare("run", "--rm", "--vm", "-v", f"{tmp_path}:/data", "busybox", "cat", "/data/file").ok().out == "shared\n"


def test_one_fits_whatever_the_network(spare: TestEngine) -> None:
    (waiting,) = keeper_ids(spare)
    assert spare("run", "-d", "--vm", "--name", "t-none", "--network", "none", "busybox", "sleep", "300").ok().line == waiting
    assert "eth0" not in spare("exec", "t-none", "ip", "-o", "link").ok().out
    spare("rm", "-f", "t-none").ok()
    ready(spare)
    (waiting,) = keeper_ids(spare)
    mac = "02:42:ac:1e:4d:07"
    assert spare("run", "-d", "--vm", "--name", "t-wish", "--mac-address", mac, "busybox", "sleep", "300").ok().line == waiting
    assert mac in spare("exec", "t-wish", "ip", "addr", "show", "eth0").ok().out
    spare("rm", "-f", "t-wish").ok()


def test_created_and_never_started(spare: TestEngine) -> None:
    waiting = keeper_ids(spare)
    ident = spare("create", "--vm", "--name", "t-never", "busybox", "true").ok().line
    assert {ident} == waiting
    spare("rm", "t-never").ok()
    await_(lambda: ident not in keeper_ids(spare) and not (spare.root / "containers" / ident).exists(), "the spare to go")
    assert spare("run", "--rm", "--vm", "busybox", "echo", "next").ok().out == "next\n"


def qemu_of(engine: TestEngine) -> int:
    (pid,) = [pid for pid, name in engine.processes().items() if name.startswith("qemu")]
    return pid


def tap_of(pid: int) -> str:
    """The name of the tap that a process has open (`iff` in the fdinfo of /dev/net/tun)."""
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        for line in info.read_text().splitlines():
            if line.startswith("iff:"):
                return line.split()[1]
    raise AssertionError(f"process {pid} has no tap")


def disturb_firewall(engine: TestEngine) -> None:
    """Take the engine's rules away, as a reload of the host's firewall does; returns when the engine has made all good again."""
    paths = Paths(engine.root, engine.run_folder)
    stray = "bydddddddddddd"  # on its bridge and of nobody: the last that is put in order
    subprocess.run(["ip", "link", "add", stray, "type", "veth", "peer", "name", "t-stray"], check=True)
    subprocess.run(["ip", "link", "set", stray, "master", f"by{paths.key}0"], check=True)
    subprocess.run(["nft", "delete", "table", "ip", paths.scope], check=True)
    await_(lambda: not Path("/sys/class/net", stray).exists(), "all to be in order")
    assert not subprocess.run(["nft", "list", "table", "ip", paths.scope], capture_output=True).returncode


def share_of_a_processor(engine: TestEngine, pid: int) -> float:
    """What part of one processor a process uses while a container of the engine waits for a second."""
    ticks = os.sysconf("SC_CLK_TCK")
    before, began = used(pid), time.monotonic()
    engine("run", "--rm", "busybox", "sleep", "1").ok()
    return (used(pid) - before) / ticks / (time.monotonic() - began)


def used(pid: int) -> int:
    """utime and stime of a process, in ticks (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_one_that_waits_is_on_no_network_and_rests(spare: TestEngine) -> None:
    """A machine whose tap is gone reads errors from it as fast as it can."""
    pid = qemu_of(spare)
    tap = Path("/sys/class/net", tap_of(pid))
    disturb_firewall(spare)
    assert tap.exists()
    assert not (tap / "master").exists()
    assert not int((tap / "flags").read_text(), 16) & 1  # IFF_UP
    await_(lambda: share_of_a_processor(spare, pid) < 0.25, "the machine that waits to rest", timeout=60)
    (waiting,) = keeper_ids(spare)
    assert spare("run", "-d", "--vm", "--name", "t-rest", "busybox", "sleep", "300").ok().line == waiting
    assert spare.inspect("t-rest")["State"]["Pid"] == pid
    assert Path("/sys/class/net", tap_of(pid), "master").readlink().name == f"by{Paths(spare.root, spare.run_folder).key}0"
    assert spare("exec", "t-rest", "ping", "-c1", "-W5", spare.inspect("t-rest")["NetworkSettings"]["Gateway"]).code == 0
    spare("rm", "-f", "t-rest").ok()


@pytest.mark.parametrize("victim", ["bothy-keeper", "bothyd", "nobody"])
def test_one_that_was_claimed_and_lost_is_no_loss(spare: TestEngine, victim: str) -> None:
    """What it was rehearsed with does not show in the machine that is made from the template in its place."""
    ident = spare("create", "--vm", "--name", "t-lost", "busybox", "sh", "-c", "echo x >> /count; wc -l < /count").ok().line
    if victim != "nobody":
        kill9(next(pid for pid, name in spare.processes().items() if name == victim))
    assert spare("start", "-a", "t-lost").ok().line == "1"
    assert spare("start", "-a", "t-lost").ok().line == "2"
    spare("rm", "t-lost").ok()
    await_(lambda: reap() or ident not in keeper_ids(spare), "its keeper's folder to go")


def test_a_killed_spare_is_no_loss(spare: TestEngine) -> None:
    (waiting,) = keeper_ids(spare)
    kill9(next(pid for pid, name in spare.processes().items() if name == "bothy-keeper"))
    assert spare("run", "--rm", "--vm", "busybox", "echo", "alive").ok().out == "alive\n"
    await_(lambda: reap() or waiting not in keeper_ids(spare), "what is left of the spare to go")


def test_a_killed_daemon_leaves_no_spare(spare: TestEngine) -> None:
    (waiting,) = keeper_ids(spare)
    kill9(spare.pid_of("bothyd"))
    assert spare("ps", "-aq").ok().out == ""
    await_(lambda: reap() or waiting not in keeper_ids(spare), "the spare of the killed daemon to go")
    await_(lambda: not (spare.root / "containers" / waiting).exists(), "its folder to go")


def test_kills_at_random_leave_nothing(spare: TestEngine) -> None:
    """Of our processes any may die at any moment while spares come, are used and go."""
    rng = random.Random("spares")
    before = snapshot(spare)
    stop = threading.Event()
    failures: list[str] = []

    def client(number: int) -> None:
        sizes = ["256m", "384m"]
        while not stop.is_set():
            done = spare("run", "--rm", "--vm", "-m", sizes[number], "busybox", "true")
            if "Traceback" in done.err or done.code not in (0, 1, 125, 137):
                failures.append(f"{done.code}: {done.err}")

    clients = [threading.Thread(target=client, args=(n,)) for n in range(2)]
    for thread in clients:
        thread.start()
    for _ in range(10):
        stop.wait(rng.uniform(0.05, 1.0))
        pids = [pid for pid, name in spare.processes().items() if name in ("bothyd", "bothy-spawner", "bothy-keeper")]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                kill9(rng.choice(pids))
        reap()
    stop.set()
    for thread in clients:
        thread.join(120)
    assert not failures
    ready(spare)
    await_(lambda: not spare("ps", "-a", "--filter", "status=running", "-q").ok().out, "what was started to be gone", timeout=60)
    spare("container", "prune", "-f").ok()
    try:
        await_(lambda: not left(before, snapshot(spare)), "the spares that were to go")
    except AssertionError:
        raise AssertionError(f"left behind: {left(before, snapshot(spare))}") from None


def left(before: Snapshot, after: Snapshot) -> dict[str, object]:
    """What there is more of: another spare waits now, under another name."""
    return {
        name: getattr(after, name)
        for name in ("processes", "mounts", "links", "cgroups", "files")
        if len(getattr(after, name)) > len(getattr(before, name))
    }


def test_an_orderly_end_leaves_nothing(spare: TestEngine) -> None:
    spare("system", "shutdown").ok()
    await_(lambda: reap() or not spare.processes(), "every process to end")
    assert not keeper_ids(spare)
