"""Machines on networks of the user's own: several at once, changed while they run, beside containers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.engine import TestEngine, await_, kill9
from tests.support.sessions import settling
from tests.support.settle import reap

pytestmark = pytest.mark.qemu

NETS = ("t-net1", "t-net2", "t-net3", "t-net4", "t-net5")


@pytest.fixture
def nets(engine: TestEngine, machines: None) -> Iterator[TestEngine]:
    """The engine, with five networks; the second one has IPv6. On it a container waits under the name `peer`."""
    with settling(engine):
        for number, name in enumerate(NETS):
            engine("network", "create", *(["--ipv6"] if number == 1 else []), name).ok()
        engine("run", "-d", "--name", "peer", "--network", "t-net2", "busybox", "sleep", "1000").ok()
        yield engine
        if left := engine("ps", "-aq").out.split():
            engine("rm", "-f", *left).ok()
        engine("network", "rm", *NETS).ok()


def start(engine: TestEngine, *flags: str) -> str:
    return engine("run", "-d", "--vm", "--name", "t-vm", *flags, "busybox", "sleep", "1000").ok().line


def cards(engine: TestEngine) -> list[str]:
    return engine("exec", "t-vm", "ls", "/sys/class/net").ok().out.split()


def address(engine: TestEngine, name: str, network: str, key: str = "IPAddress") -> str:
    return str(engine.inspect(name)["NetworkSettings"]["Networks"][network][key])


def pings(engine: TestEngine, source: str, target: str) -> bool:
    return engine("exec", source, "ping", "-c", "1", "-W", "5", target).code == 0


def test_two_networks_at_create(nets: TestEngine) -> None:
    start(nets, "--network", "t-net1", "--network", "t-net2")
    assert cards(nets) == ["eth0", "eth1", "lo"]
    assert pings(nets, "t-vm", address(nets, "peer", "t-net2"))
    assert pings(nets, "t-vm", address(nets, "peer", "t-net2", "GlobalIPv6Address"))
    assert pings(nets, "peer", address(nets, "t-vm", "t-net2"))
    seen = nets("exec", "t-vm", "ip", "-o", "addr").ok().out
    for network in NETS[:2]:
        assert address(nets, "t-vm", network) in seen


def test_connected_and_disconnected_while_it_runs(nets: TestEngine) -> None:
    start(nets)
    peer = address(nets, "peer", "t-net2")

    def hosts() -> str:
        return nets("exec", "t-vm", "cat", "/etc/hosts").ok().out

    nets("exec", "t-vm", "sh", "-c", "echo 192.0.2.1 mine >> /etc/hosts").ok()
    for _ in range(2):
        nets("network", "connect", "t-net2", "t-vm").ok()
        assert cards(nets) == ["eth0", "eth1", "lo"]
        own = address(nets, "t-vm", "t-net2")
        await_(lambda own=own: f"{own}\t" in hosts(), "its new address in its hosts file")
        assert pings(nets, "t-vm", peer)
        assert pings(nets, "peer", address(nets, "t-vm", "t-net2"))
        nets("network", "disconnect", "t-net2", "t-vm").ok()
        assert cards(nets) == ["eth0", "lo"]
        await_(lambda own=own: own not in hosts(), "its old address to go")
    assert "192.0.2.1 mine" in hosts()
    nets("network", "disconnect", "bridge", "t-vm").ok()
    assert cards(nets) == ["lo"]
    nets("network", "connect", "t-net2", "t-vm").ok()
    assert pings(nets, "t-vm", peer)
    nets("restart", "-t", "0", "t-vm").ok()
    assert cards(nets) == ["eth0", "lo"]
    assert pings(nets, "t-vm", peer), "what was changed stays changed"


def test_names_are_found_over_both_walls(nets: TestEngine) -> None:
    start(nets, "--network", "t-net1")
    assert nets("exec", "t-vm", "nslookup", "peer").code != 0
    nets("network", "connect", "--alias", "machine", "t-net2", "t-vm").ok()
    assert pings(nets, "t-vm", "peer")
    assert pings(nets, "peer", "t-vm")
    assert pings(nets, "peer", "machine")


def test_more_networks_than_cards(nets: TestEngine) -> None:
    flags = [word for name in NETS for word in ("--network", name)]
    done = nets("create", "--vm", "--name", "t-many", *flags, "busybox", "true")
    assert done.code
    assert "a machine can be on 4 networks at most, not on 5" in done.err
    assert not nets("ps", "-aq", "--filter", "name=t-many").out
    start(nets, *flags[:8])
    assert cards(nets) == ["eth0", "eth1", "eth2", "eth3", "lo"]
    done = nets("network", "connect", "t-net5", "t-vm")
    assert done.code
    assert "4 networks at most" in done.err
    assert "t-net5" not in nets.inspect("t-vm")["NetworkSettings"]["Networks"]


def test_a_paused_machine_and_one_that_is_stopped(nets: TestEngine) -> None:
    start(nets)
    nets("pause", "t-vm").ok()
    nets("network", "connect", "t-net2", "t-vm").ok()
    nets("unpause", "t-vm").ok()
    assert pings(nets, "t-vm", address(nets, "peer", "t-net2"))
    nets("kill", "t-vm").ok()
    nets("network", "disconnect", "t-net2", "t-vm").ok()
    nets("network", "connect", "t-net3", "t-vm").ok()
    nets("start", "t-vm").ok()
    assert sorted(nets.inspect("t-vm")["NetworkSettings"]["Networks"]) == ["bridge", "t-net3"]
    assert cards(nets) == ["eth0", "eth1", "lo"]


def test_a_killed_keeper_leaves_no_tap(nets: TestEngine) -> None:
    start(nets, "--network", "t-net1", "--network", "t-net2")
    before = {name for name in os.listdir("/sys/class/net") if name.startswith("by")}
    found = nets.processes()
    mine = [pid for pid, name in found.items() if name == "bothy-keeper" and _has_child(pid, "qemu")]
    kill9(mine[0])
    await_(lambda: reap() or nets.inspect("t-vm")["State"]["Status"] == "exited", "the machine to be given up")
    gone = {f"by{nets.inspect('t-vm')['Id'][:12]}", f"by{nets.inspect('t-vm')['Id'][:10]}-1"}
    assert gone <= before
    await_(lambda: not gone & set(os.listdir("/sys/class/net")), "the taps to go")


def _has_child(pid: int, name: str) -> bool:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return any(_name(int(child)).startswith(name) for child in file.read().split())


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return file.read()


def test_what_a_machine_can_not_share(nets: TestEngine) -> None:
    start(nets)
    for flags, words in (
        (("--vm", "--network", "container:peer"), "a machine can not share a container's network"),
        (("--network", "container:t-vm"), "it is a machine"),
        (("--vm", "--network", "host"), "a machine can not share the host's network"),
    ):
        done = nets("run", "--rm", *flags, "busybox", "true")
        assert done.code == 125
        assert words in done.err
