"""What may pass, and what may not, by real packets through a real kernel."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bothy.networks.model import NetworkRequest, PortRequest, Published
from bothy.networks.service import Networks

from .conftest import World

UDP = socket.SOCK_DGRAM


def gateway(networks: Networks) -> str:
    return networks.get("bridge").gateway


def test_workloads_of_a_network_reach_each_other_and_the_gateway(world: World, networks: Networks) -> None:
    one, two = world.workload(networks, "a"), world.workload(networks, "b")
    assert world.ask(one.netns, two.lease.ip, 80, two.listen(80)) == one.lease.ip
    server = world.server("0.0.0.0", 8000)
    assert world.ask(one.netns, gateway(networks), 8000, server) == one.lease.ip


def test_the_way_out_is_masqueraded(world: World, networks: Networks) -> None:
    world.add_neighbour()
    inside = world.workload(networks, "a")
    with world.inside(world.lan):
        server = world.server("198.51.100.2", 7000)
        datagrams = world.server("198.51.100.2", 7000, UDP)
    assert world.ask(inside.netns, "198.51.100.2", 7000, server) == "198.51.100.1"
    assert world.ask(inside.netns, "198.51.100.2", 7000, datagrams) == "198.51.100.1"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, UDP], ids=["tcp", "udp"])
def test_a_published_port_is_reached_from_everywhere(world: World, networks: Networks, kind: int) -> None:
    world.add_neighbour()
    inside, other = world.workload(networks, "a"), world.workload(networks, "b")
    server = inside.listen(80, kind)
    protocol = "udp" if kind == UDP else "tcp"
    assert networks.publish("a" * 64, [PortRequest(80, protocol, host_port="8080")]) == [Published(80, protocol, "0.0.0.0", 8080)]
    networks.attached("a" * 64)
    assert world.ask(world.lan, "198.51.100.1", 8080, server) == "198.51.100.2"
    assert world.ask(world.host, "127.0.0.1", 8080, server) == gateway(networks)
    assert world.ask(world.host, "198.51.100.1", 8080, server) == "198.51.100.1"
    assert world.ask(world.host, gateway(networks), 8080, server) == gateway(networks)
    assert world.ask(other.netns, "198.51.100.1", 8080, server) == gateway(networks)
    assert world.ask(other.netns, gateway(networks), 8080, server) == gateway(networks)
    assert world.ask(inside.netns, "198.51.100.1", 8080, server) == gateway(networks)
    networks.unpublish("a" * 64)
    assert world.can_not(world.lan, "198.51.100.1", 8080, server)
    assert world.can_not(world.host, "127.0.0.1", 8080, server)


def test_a_port_published_on_the_loopback_stays_there(world: World, networks: Networks) -> None:
    world.add_neighbour()
    inside = world.workload(networks, "a")
    server = inside.listen(80)
    networks.publish("a" * 64, [PortRequest(80, host_ip="127.0.0.1", host_port="8080")])
    assert world.ask(world.host, "127.0.0.1", 8080, server) == gateway(networks)
    assert world.can_not(world.lan, "198.51.100.1", 8080, server)
    with world.inside(world.lan):  # a neighbour that sends packets for 127.0.0.1 to us
        Path("/proc/sys/net/ipv4/conf/eth0/route_localnet").write_text("1")
        Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("0")
        _route_loopback_by("198.51.100.1", "eth0")
    assert world.can_not(world.lan, "127.0.0.1", 8080, server)


def test_a_port_published_on_one_address_is_not_on_others(world: World, networks: Networks) -> None:
    world.add_neighbour()
    inside = world.workload(networks, "a")
    server = inside.listen(80)
    networks.publish("a" * 64, [PortRequest(80, host_ip="198.51.100.1", host_port="8080")])
    assert world.ask(world.lan, "198.51.100.1", 8080, server) == "198.51.100.2"
    assert world.can_not(world.host, "127.0.0.1", 8080, server)


def test_neighbours_reach_only_what_is_published(world: World, networks: Networks) -> None:
    world.add_neighbour()
    inside = world.workload(networks, "a")
    server = inside.listen(80)
    with world.inside(world.lan):
        from bothy.linux import netlink
        from bothy.linux.links import index_of

        with netlink.Rtnetlink() as kernel:
            subnet = networks.get("bridge").subnet
            kernel.batch([netlink.route_request(netlink.RTM_NEWROUTE, index_of("eth0"), subnet, "198.51.100.1")])
    assert world.can_not(world.lan, inside.lease.ip, 80, server)


def test_a_workload_does_not_reach_the_hosts_loopback(world: World, networks: Networks) -> None:
    inside = world.workload(networks, "a")
    server = world.server("127.0.0.1", 6000)
    with world.inside(inside.netns):
        Path("/proc/sys/net/ipv4/conf/eth0/route_localnet").write_text("1")
        _route_loopback_by(gateway(networks), "eth0")
    assert world.can_not(inside.netns, "127.0.0.1", 6000, server)


def test_networks_are_apart_but_for_published_ports(world: World, networks: Networks) -> None:
    network = networks.create(NetworkRequest("apart"))
    here, there = world.workload(networks, "a"), world.workload(networks, "b", "apart")
    server = there.listen(80)
    assert here.lease.bridge != there.lease.bridge
    assert world.can_not(here.netns, there.lease.ip, 80, server)
    networks.publish("b" * 64, [PortRequest(80, host_port="8080")])
    assert world.ask(here.netns, network.gateway, 8080, server) == here.lease.ip


def test_an_internal_network_has_no_way_out(world: World, networks: Networks) -> None:
    world.add_neighbour()
    networks.create(NetworkRequest("inner", internal=True))
    one, two = world.workload(networks, "a", "inner"), world.workload(networks, "b", "inner")
    with world.inside(world.lan):
        server = world.server("198.51.100.2", 7000)
    assert world.can_not(one.netns, "198.51.100.2", 7000, server)
    assert world.ask(one.netns, two.lease.ip, 80, two.listen(80)) == one.lease.ip


def test_an_old_udp_flow_follows_the_port(world: World, networks: Networks) -> None:
    world.add_neighbour()
    first, second = world.workload(networks, "a"), world.workload(networks, "b")
    servers = [first.listen(53, UDP), second.listen(53, UDP)]
    with world.inside(world.lan):
        client = world.server("198.51.100.2", 40000, UDP)
    client.connect(("198.51.100.1", 5353))
    client.send(b"before")  # a flow that was there before the port was published
    for name, server in (("a", servers[0]), ("b", servers[1])):
        networks.publish(name * 64, [PortRequest(53, "udp", host_port="5353")])
        _drain_errors(client)
        client.send(name.encode())
        assert server.recvfrom(16)[0] == name.encode()
        networks.unpublish(name * 64)


def _drain_errors(client: socket.socket) -> None:
    """An ICMP error for an earlier datagram is told by the next call on the socket."""
    client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _route_loopback_by(gateway: str, link: str) -> None:
    """In this namespace 127.0.0.0/8 is no longer local but behind a gateway."""
    from bothy.linux import links, netlink

    links.delete_address("lo", "127.0.0.1/8")
    with netlink.Rtnetlink() as kernel:
        index = links.index_of(link)
        kernel.batch([netlink.route_request(netlink.RTM_NEWROUTE, index, "127.0.0.0/8", gateway)])
