"""Machines on several networks: at their start, and changed while they run. What is inside is looked at by programs in the guest."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bothy.errors import StageError
from bothy.linux import links
from bothy.linux.links import Attachment, Interface, Route
from bothy.machines.model import MachinePlan
from tests.support.engine import await_
from tests.support.machines import Machine, Machines, Session, taps

pytestmark = pytest.mark.qemu

HOST = [("172.31.99.1", "fd99::1"), ("172.31.98.1", "fd98::1"), ("172.31.97.1", "fd97::1"), ("172.31.96.1", "fd96::1")]


@pytest.fixture
def bridges(network: None) -> Iterator[list[str]]:
    """Four bridges; the host has the first address of both kinds on each."""
    names = [f"mt-bridge{number}" for number in range(4)]
    try:
        for name, (v4, v6) in zip(names, HOST, strict=True):
            links.create_bridge(name)
            links.add_address(name, f"{v4}/24")
            links.add_address(name, f"{v6}/64")
        yield names
    finally:
        links.delete_links(names)


def attachment(number: int, *, ipv6: bool = False, leads_out: bool = False, name: str = "", mtu: int = 1500) -> Attachment:
    """To the bridge of that number; the machine has the second address there."""
    v4, v6 = (address.removesuffix("1") + "2" for address in HOST[number])
    routes = [Route("default", HOST[number][0])] if leads_out else []
    addresses = [f"{v4}/24", *([f"{v6}/64"] if ipv6 else [])]
    interface = Interface(name or f"eth{number}", f"02:42:ac:1f:00:0{number}", addresses, routes, mtu)
    return Attachment(interface, f"mt-tap{number}", f"mt-bridge{number}")


def sleeper(machines: Machines, *attachments: Attachment) -> Machine:
    """A machine that runs until it is killed."""
    machine = machines.machine(plan(machines, *attachments))
    assert machine.start().process is not None, machine.main.error
    return machine


def plan(machines: Machines, *attachments: Attachment, script: str = "sleep 1000") -> MachinePlan:
    return machines.plan("sh", "-c", script, attachments=list(attachments), ephemeral=True)


def output(machine: Machine, script: str) -> str:
    """What a script says in the machine."""
    session: Session = machine.exec("sh", "-c", script)
    machine.until(lambda: session.over)
    assert session.code == 0, (script, session)
    return session.text


def cards(machine: Machine) -> list[str]:
    return output(machine, "ls /sys/class/net").split()


def pings(machine: Machine, address: str) -> bool:
    return "seen" in output(machine, f"ping -c 1 -w 5 {address} > /dev/null && echo seen; true")


def masters() -> dict[str, int]:
    return {name: link.master for name, link in links.links().items() if name.startswith("mt-tap")}


def test_two_networks_from_the_start(machines: Machines, bridges: list[str]) -> None:
    one, other = attachment(0, leads_out=True), attachment(1)
    script = "cat /sys/class/net/eth*/address; ip -o -4 addr; ip route; ping -c1 -w5 172.31.99.1; ping -c1 -w5 172.31.98.1"
    done = machines.machine(plan(machines, one, other, script=script)).run()
    assert done.code == 0, done
    assert done.text.splitlines()[:2] == [one.interface.mac, other.interface.mac]
    assert "default via 172.31.99.1 dev eth0" in done.text
    assert "eth1    inet 172.31.98.2/24" in done.text
    assert not masters()


def test_ipv6_from_the_start(machines: Machines, bridges: list[str]) -> None:
    machine = sleeper(machines, attachment(0, ipv6=True), attachment(1, ipv6=True), attachment(2))
    for _, address in HOST[:2]:
        assert pings(machine, address)
    seen = output(machine, "ip -o -6 addr; cat /proc/sys/net/ipv6/conf/eth1/accept_ra")
    assert "fd98::2/64 scope global" in seen
    assert "fe80::42:acff:fe1f:0/64" in seen, "of its own hardware address, not of its template's"
    assert "tentative" not in seen
    assert "eth2" not in seen, "IPv6 is only where it is given"
    assert seen.splitlines()[-1] == "0"


def test_names_and_sizes_are_as_asked(machines: Machines, bridges: list[str]) -> None:
    first, second = attachment(0, name="front"), attachment(1, name="back", mtu=1400)
    machine = sleeper(machines, first, second)
    assert cards(machine) == ["back", "front", "lo"]
    assert output(machine, "cat /sys/class/net/front/mtu /sys/class/net/back/mtu").split() == ["1500", "1400"]
    assert links.links()["mt-tap1"].mtu == 1400
    assert pings(machine, HOST[0][0])
    assert pings(machine, HOST[1][0])


def test_networks_come_and_go_while_it_runs(machines: Machines, bridges: list[str]) -> None:
    first, second = attachment(0, leads_out=True), attachment(1, ipv6=True)
    machine = sleeper(machines, first)
    assert cards(machine) == ["eth0", "lo"], "a card without a network is not seen"
    for _ in range(2):
        assert machine.ask(lambda done: machine.wall.connect(second, done)) == {}
        assert cards(machine) == ["eth0", "eth1", "lo"]
        assert pings(machine, HOST[1][0])
        assert pings(machine, HOST[1][1])
        assert pings(machine, HOST[0][0])
        assert masters() == {f"mt-tap{n}": links.index_of(bridges[n]) for n in range(2)}
        assert machine.ask(lambda done: machine.wall.disconnect("mt-tap1", None, done)) == {}
        assert cards(machine) == ["eth0", "lo"]
        assert list(masters()) == ["mt-tap0"]
    assert machine.ask(lambda done: machine.wall.disconnect("mt-tap1", None, done)) == {}, "gone already"
    assert pings(machine, HOST[0][0])


def test_the_first_network_goes_and_another_leads_out(machines: Machines, bridges: list[str]) -> None:
    machine = sleeper(machines, attachment(0, leads_out=True), attachment(1))
    heir = replace(attachment(1).interface, routes=[Route("default", HOST[1][0])])
    assert machine.ask(lambda done: machine.wall.disconnect("mt-tap0", heir, done)) == {}
    assert "default via 172.31.98.1 dev eth1" in output(machine, "ip route")
    assert machine.ask(lambda done: machine.wall.connect(attachment(0, leads_out=True), done)) == {}
    assert "default via 172.31.99.1 dev eth0" in output(machine, "ip route"), "its routes take the place of others"


def test_from_no_network_to_one(machines: Machines, bridges: list[str]) -> None:
    machine = sleeper(machines)
    assert cards(machine) == ["lo"]
    assert machine.ask(lambda done: machine.wall.connect(attachment(0, leads_out=True), done)) == {}
    assert cards(machine) == ["eth0", "lo"]
    assert pings(machine, HOST[0][0])


def test_as_many_networks_as_cards(machines: Machines, bridges: list[str]) -> None:
    everywhere = [attachment(number) for number in range(4)]
    machine = sleeper(machines, *everywhere[:3])
    assert machine.ask(lambda done: machine.wall.connect(everywhere[3], done)) == {}
    assert all(pings(machine, v4) for v4, _ in HOST)
    one_more = Attachment(Interface("eth4", "02:42:ac:1f:00:09", ["172.31.95.2/24"]), "mt-tap9", bridges[0])
    refusal = machine.ask(lambda done: machine.wall.connect(one_more, done))
    assert isinstance(refusal, StageError)
    assert "all 4 network cards" in refusal.message
    error = machines.machine(plan(machines, *everywhere, one_more)).run().error
    assert isinstance(error, StageError)
    assert "4 network cards" in error.message
    assert "mt-tap9" not in taps()


def test_a_failure_leaves_nothing(machines: Machines, bridges: list[str]) -> None:
    machine = sleeper(machines, attachment(0))
    nowhere = replace(attachment(1), bridge="mt-nowhere")
    assert isinstance(machine.ask(lambda done: machine.wall.connect(nowhere, done)), StageError)
    bad = replace(attachment(1), interface=replace(attachment(1).interface, routes=[Route("10.0.0.0/8", "192.0.2.1")]))
    refusal = machine.ask(lambda done: machine.wall.connect(bad, done))
    assert isinstance(refusal, StageError), "that gateway can not be reached"
    assert list(masters()) == ["mt-tap0"]
    assert cards(machine) == ["eth0", "lo"]
    assert machine.ask(lambda done: machine.wall.connect(attachment(1), done)) == {}
    assert pings(machine, HOST[1][0])


def test_a_paused_machine_is_connected(machines: Machines, bridges: list[str]) -> None:
    machine = sleeper(machines, attachment(0))
    assert machine.ask(machine.wall.pause) == {}
    assert machine.ask(lambda done: machine.wall.connect(attachment(1), done)) == {}
    assert machine.ask(machine.wall.resume) == {}
    assert pings(machine, HOST[1][0])


def test_one_that_has_waited_gets_its_networks(machines: Machines, bridges: list[str]) -> None:
    machine = machines.machine(plan(machines))
    ready: list[bool] = []
    machine.wall.wait_ahead(lambda: ready.append(True))
    machine.until(lambda: bool(ready))
    wanted = [attachment(2, leads_out=True, name="eth0"), attachment(1, ipv6=True)]
    machine.wall.assign(replace(machine.wall._plan, attachments=wanted), stdin=False)
    assert machine.start().process is not None, machine.main.error
    assert cards(machine) == ["eth0", "eth1", "lo"]
    for address in (HOST[2][0], *HOST[1]):
        assert pings(machine, address)


def test_a_name_that_the_former_life_still_has(machines: Machines, bridges: list[str]) -> None:
    former = links.open_tap("mt-tap0", bridges[0])
    try:
        machine = sleeper(machines, attachment(0))
        assert masters() == {"mt-tap0": links.index_of(bridges[0])}
        assert pings(machine, HOST[0][0])
    finally:
        os.close(former)


def test_stats_count_each_network(machines: Machines, bridges: list[str]) -> None:
    machine = sleeper(machines, attachment(0), attachment(1))
    assert pings(machine, HOST[1][0])
    counted = machine.ask(machine.wall.stats)["networks"]
    assert set(counted) == {"eth0", "eth1"}
    assert counted["eth1"]["rx_packets"] > 0


def test_a_killed_keeper_leaves_no_tap(template: Path, disk: Path, tmp_path: Path, bridges: list[str]) -> None:
    read, write = os.pipe()
    keeper = os.fork()
    if not keeper:
        try:
            machine = sleeper(Machines(template, disk, tmp_path), attachment(0), attachment(1))
            os.write(write, str(machine.qemu).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    qemu = int(os.read(read, 100))
    os.close(read)
    assert list(masters()) == ["mt-tap0", "mt-tap1"]
    ended = os.pidfd_open(qemu)
    os.kill(keeper, signal.SIGKILL)
    os.waitpid(keeper, 0)
    assert select.select([ended], [], [], 20)[0], "QEMU outlives its keeper"
    os.close(ended)
    await_(lambda: not masters(), "the taps to go")
