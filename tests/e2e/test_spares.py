"""Machines that wait: the next `run --vm` becomes one, and nobody can tell but by the time it takes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import TestEngine, await_, kill9
from tests.support.settle import become_subreaper, reap

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
    ready(spare)
    out = spare("run", "--rm", "--vm", "--network", "none", "busybox", "ip", "-o", "link").ok().out
    assert "eth0" not in out


def test_created_and_never_started(spare: TestEngine) -> None:
    waiting = keeper_ids(spare)
    ident = spare("create", "--vm", "--name", "t-never", "busybox", "true").ok().line
    assert {ident} == waiting
    spare("rm", "t-never").ok()
    await_(lambda: ident not in keeper_ids(spare) and not (spare.root / "containers" / ident).exists(), "the spare to go")
    assert spare("run", "--rm", "--vm", "busybox", "echo", "next").ok().out == "next\n"


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


def test_an_orderly_end_leaves_nothing(spare: TestEngine) -> None:
    spare("system", "shutdown").ok()
    await_(lambda: reap() or not spare.processes(), "every process to end")
    assert not keeper_ids(spare)
