"""Driver options, several networks for a workload, and what the doctor says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bothy.errors import Conflict, Forbidden, Invalid, Unsupported
from bothy.linux import links
from bothy.networks import options
from bothy.networks.doctor import HOST, LAN, WORLD
from bothy.networks.model import IpamPool, NetworkRequest, PortRequest, way_out
from bothy.networks.service import Networks
from bothy.paths import Paths

from .conftest import Workload, World

A, B = "a" * 64, "b" * 64


def nft(*words: str) -> str:
    return subprocess.run(["nft", *words], check=True, capture_output=True, text=True).stdout


def test_the_bridges_name_and_its_mtu(world: World, networks: Networks) -> None:
    made = networks.create(NetworkRequest("named", options={options.BRIDGE_NAME: "mine0", options.MTU: "1400"}))
    assert (made.bridge, links.links()["mine0"].mtu) == ("mine0", 1400)
    lease = networks.lease(A, "named")
    assert (lease.mtu, networks.attachments(A)[0].interface.mtu) == (1400, 1400)
    links.create_bridge("theirs")
    for words, error in (
        ({options.BRIDGE_NAME: "mine0"}, Conflict),
        ({options.BRIDGE_NAME: "theirs"}, Conflict),
        ({options.BRIDGE_NAME: "no/name"}, Invalid),
        ({options.BRIDGE_NAME: "longer-than-fifteen"}, Invalid),
        ({options.MTU: "12"}, Invalid),
        ({options.ICC: "perhaps"}, Invalid),
        ({options.HOST_BINDING: "nowhere"}, Invalid),
        ({options.GATEWAY_MODES[0]: "routed"}, Unsupported),
    ):
        with pytest.raises(error):
            networks.create(NetworkRequest("wrong", options=words))
    assert [n.name for n in networks.list()] == ["bridge", "host", "none", "named"]
    assert "theirs" in links.links()


@pytest.mark.parametrize("seen", ["0", "1"], ids=["bridged packets pass by the firewall", "bridged packets pass the firewall"])
def test_workloads_that_must_not_talk_to_each_other(world: World, networks: Networks, seen: str) -> None:
    world.add_neighbour()
    for family in ("ip", "ip6"):
        Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables").write_text(seen)
    networks.create(NetworkRequest("apart", options={options.ICC: "false"}, ipv6=True))
    one, two = world.workload(networks, "a", "apart"), world.workload(networks, "b", "apart")
    assert world.can_not(one.netns, two.lease.ip, 80, two.listen(80))
    assert world.can_not(one.netns, two.lease.ip6, 81, two.listen(81, address="::"))
    with world.inside(world.lan):
        server = world.server("198.51.100.2", 7000)
    assert world.ask(one.netns, "198.51.100.2", 7000, server) == "198.51.100.1"
    networks.publish(B, [PortRequest(82, host_port="8082")])
    assert world.ask(one.netns, two.lease.gateway, 8082, two.listen(82))


def test_where_ports_are_published_that_name_no_address(world: World, paths: Paths) -> None:
    networks = Networks(paths, default_bind="127.0.0.1")
    networks.create(NetworkRequest("wide", options={options.HOST_BINDING: "0.0.0.0"}, ipv6=True))
    networks.lease(A)
    networks.lease(B, "wide")
    narrow = networks.publish(A, [PortRequest(80, host_port="8080"), PortRequest(81, host_ip="0.0.0.0", host_port="8081")])
    assert [p.host_ip for p in narrow] == ["127.0.0.1", "0.0.0.0"]
    assert [p.host_ip for p in networks.publish(B, [PortRequest(80, host_port="8082")])] == ["0.0.0.0"]
    networks.close()


def attach(world: World, networks: Networks, netns: int, workload: str) -> None:
    for attachment in networks.attachments(workload):
        links.connect(attachment.link, attachment.bridge, netns, attachment.interface, isolated=attachment.isolated)


def test_a_workload_on_several_networks(world: World, networks: Networks) -> None:
    world.add_neighbour()
    networks.create(NetworkRequest("zulu"))
    networks.create(NetworkRequest("alpha", ipv6=True))
    networks.create(NetworkRequest("inner", internal=True))
    for name in ("zulu", "inner", "alpha"):
        networks.lease(A, name)
    leases = networks.leases_of(A)
    assert [lease.interface for lease in leases] == ["eth0", "eth1", "eth2"]
    assert len({lease.link for lease in leases}) == 3
    assert all(len(lease.link) < 16 for lease in leases)
    leading = way_out(leases)
    assert leading is not None
    assert leading.network_name == "alpha"
    netns = world.netns()
    attach(world, networks, netns, A)
    with world.inside(netns):
        assert [r.gateway for r in links.routes() if r.destination == "default"] == [leading.gateway]
    inside = Workload(world, netns, leading)
    ports = networks.publish(A, [PortRequest(80, host_port="8080")])
    assert world.ask(world.lan, "198.51.100.1", 8080, inside.listen(80)) == "198.51.100.2"
    inner = world.workload(networks, "b", "inner")
    address = next(lease.ip for lease in leases if lease.network_name == "inner")
    assert world.ask(inner.netns, address, 81, inside.listen(81)) == inner.lease.ip
    networks.release(A, leading.network)
    assert [p.host_ip for p in networks.republish(A)] == ["0.0.0.0"]  # zulu has no IPv6
    assert ports[0] in networks.published(A)
    assert networks.lease(A, "zulu").ip in nft("list", "ruleset")
    networks.release(A, networks.get("zulu").id)
    assert networks.republish(A) == []  # nothing leads out any more
    assert networks.publish(A, [PortRequest(80)]) == []
    networks.release(A)
    assert networks.leases_of(A) == []


def test_which_one_leads_out_can_be_chosen(world: World, networks: Networks) -> None:
    networks.create(NetworkRequest("alpha"))
    networks.lease(A, "alpha")
    networks.lease(A, "bridge", priority=7, interface="wan")
    routes = {a.interface.name: len(a.interface.routes) for a in networks.attachments(A)}
    assert routes == {"eth0": 0, "wan": 1}
    assert [len(a.interface.routes) for a in networks.attachments(A, without=networks.get("bridge").id)] == [1]
    networks.create(NetworkRequest("beta"))
    with pytest.raises(Invalid, match="wan"):
        networks.lease(A, "beta", interface="wan")


def test_many_networks_for_one(world: World, networks: Networks) -> None:
    for number in range(20):
        networks.create(NetworkRequest(f"n{number}", [IpamPool(f"10.77.{number}.0/29")]))
        networks.lease(A, f"n{number}")
    assert len({lease.link for lease in networks.leases_of(A)}) == 20
    networks.release(A, networks.get("n3").id)
    assert networks.lease(A, "bridge").interface == "eth3"


def test_what_can_not_be_made_is_not_there_afterwards(world: World, networks: Networks) -> None:
    for request, error, words in (
        (NetworkRequest("bridge"), Forbidden, "operation is not permitted on predefined bridge network"),
        (NetworkRequest(""), Invalid, "name is empty"),
        (NetworkRequest("no/name"), Invalid, "invalid network name"),
        (NetworkRequest("x", [IpamPool("10.1.0.0/24"), IpamPool("10.2.0.0/24")]), Forbidden, "multiple IPv4 subnets"),
        (NetworkRequest("x", [IpamPool("10.1.0.1/24")]), Invalid, "it should be 10.1.0.0/24"),
    ):
        with pytest.raises(error, match=words):
            networks.create(request)
    networks.create(NetworkRequest("first", [IpamPool("10.5.0.0/16")]))
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        networks.create(NetworkRequest("second", [IpamPool("10.5.9.0/24")]))
    networks.create(NetworkRequest("third", [IpamPool("10.6.0.0/24"), IpamPool("fd33::/64")]))  # asked for without ipv6
    assert networks.get("third").subnet6 == ""
    assert len(links.links()) == 3  # lo and two bridges


def test_the_doctor_tells_who_reaches_what(world: World, networks: Networks) -> None:
    world.add_neighbour()
    networks.lease(A)
    assert networks.examine().problems == []
    networks.publish(
        A,
        [
            PortRequest(80, host_ip="127.0.0.1", host_port="8080"),
            PortRequest(81, host_port="8081"),
            PortRequest(82, host_ip="198.51.100.1", host_port="8082"),
        ],
    )
    found = networks.examine()
    assert [(e.port.host_port, e.reach) for e in found.exposures] == [(8080, HOST), (8081, LAN), (8082, LAN)]
    assert found.exposures[1].at == ["127.0.0.1", "198.51.100.1"]
    links.add_address("uplink", "9.9.9.77/32")
    assert [e.reach for e in networks.examine().exposures] == [HOST, WORLD, LAN]


def test_the_doctor_tells_what_is_wrong(world: World, networks: Networks, paths: Paths) -> None:
    world.add_neighbour()
    lease = networks.lease(A)
    subprocess.run(["sysctl", "-qw", "net.ipv4.ip_forward=0", f"net.ipv4.conf.{lease.bridge}.route_localnet=0"], check=True)
    subprocess.run(["iptables-nft", "-P", "FORWARD", "DROP"], check=True)
    nft("add table inet theirs; add chain inet theirs f { type filter hook forward priority 0; policy drop; }")
    nft("flush", "chain", "ip", paths.scope, "forward")
    links.create_bridge("other")
    links.add_address("other", "172.30.9.1/24")
    problems = {p.about: p for p in networks.examine().problems}
    assert set(problems) == {
        "net.ipv4.ip_forward", f"net.ipv4.conf.{lease.bridge}.route_localnet", paths.scope, "bridge", "inet theirs f",
    }  # fmt: skip
    assert "172.30.9.0/24" in problems["bridge"].message or "FORWARD chain" in problems["bridge"].message
    networks.reconcile()
    left = {p.about for p in networks.examine().problems}
    assert left == {"bridge", "inet theirs f"}  # what is not ours to put right
    links.delete_link(lease.bridge)
    assert any("is gone" in p.message for p in networks.examine().problems)
