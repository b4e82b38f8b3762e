"""IPv6 beside IPv4: addresses, ways out and in, isolation, and the tables that hold it."""

from __future__ import annotations

import errno
import socket
import subprocess
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from bothy.linux import links
from bothy.networks.model import IpamPool, NetworkRequest, PortRequest, Published
from bothy.networks.service import Networks
from bothy.paths import Paths

from .conftest import Workload, World

A, B = "a" * 64, "b" * 64
ANY6 = "::"


def nft(*words: str) -> str:
    return subprocess.run(["nft", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def six(world: World, networks: Networks) -> Workload:
    world.add_neighbour()
    networks.create(NetworkRequest("six", ipv6=True))
    return world.workload(networks, "a", "six")


def test_a_network_with_ipv6_has_a_subnet_of_the_engines_own(six: Workload, networks: Networks, paths: Paths) -> None:
    network = networks.get("six")
    assert IPv6Network(network.subnet6).subnet_of(IPv6Network("fd00::/8"))
    assert six.lease.address6 == network.subnet6.replace("/64", "2/64")
    assert f"{network.gateway6}/64" in links.addresses()[network.bridge]
    other = networks.create(NetworkRequest("other", ipv6=True))
    assert other.subnet6 != network.subnet6
    site = IPv6Network(network.subnet6).supernet(new_prefix=48)
    assert IPv6Network(other.subnet6).subnet_of(site)
    again = Networks(paths)
    assert IPv6Network(again.create(NetworkRequest("third", ipv6=True)).subnet6).subnet_of(site)
    again.close()


def test_the_kernel_is_told_not_to_listen_to_routers_inside(six: Workload, world: World, networks: Networks) -> None:
    assert Path(f"/proc/sys/net/ipv6/conf/{six.lease.bridge}/accept_ra").read_text().strip() == "0"
    with world.inside(six.netns):
        assert Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text().strip() == "0"
    assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1"
    plain = networks.create(NetworkRequest("plain"))
    assert Path(f"/proc/sys/net/ipv6/conf/{plain.bridge}/disable_ipv6").read_text().strip() == "1"


def test_the_host_goes_on_listening_to_its_own_routers(world: World, networks: Networks) -> None:
    world.add_neighbour()
    Path("/proc/sys/net/ipv6/conf/uplink/accept_ra").write_text("1")
    networks.create(NetworkRequest("six", ipv6=True))
    assert Path("/proc/sys/net/ipv6/conf/uplink/accept_ra").read_text().strip() == "2"


def test_out_by_the_hosts_address(six: Workload, world: World) -> None:
    with world.inside(world.lan):
        server = world.server("2001:db8:7::2", 7000)
    assert world.ask(six.netns, "2001:db8:7::2", 7000, server) == "2001:db8:7::1"


def test_within_the_network_as_it_is(six: Workload, world: World, networks: Networks) -> None:
    other = world.workload(networks, "b", "six")
    assert world.ask(other.netns, six.lease.ip6, 80, six.listen(80, address=ANY6)) == other.lease.ip6
    assert world.ask(world.host, six.lease.ip6, 81, six.listen(81, address=ANY6)) == networks.get("six").gateway6


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_published_ports(six: Workload, world: World, networks: Networks, kind: int) -> None:
    protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
    server = six.listen(80, kind, ANY6)
    four = six.listen(80, kind) if kind == socket.SOCK_DGRAM else None
    ports = networks.publish(A, [PortRequest(80, protocol, host_port="8080")])
    networks.attached(A)
    assert ports == [Published(80, protocol, "0.0.0.0", 8080), Published(80, protocol, "::", 8080)]
    assert world.ask(world.lan, "2001:db8:7::1", 8080, server) == "2001:db8:7::2"
    assert world.ask(world.host, "2001:db8:7::1", 8080, server)
    assert world.ask(six.netns, networks.get("six").gateway6, 8080, server) == networks.get("six").gateway6  # itself
    if four is not None:
        assert world.ask(world.host, "127.0.0.1", 8080, four)
    else:
        with socket.socket(socket.AF_INET6) as client:
            assert client.connect_ex(("::1", 8080)) == errno.ECONNREFUSED
    networks.unpublish(A)
    assert world.can_not(world.lan, "2001:db8:7::1", 8080, server)


def test_neighbours_reach_nothing_else(six: Workload, world: World, networks: Networks) -> None:
    server = six.listen(80, address=ANY6)
    networks.publish(A, [PortRequest(81, host_port="8081")])
    with world.inside(world.lan):
        subprocess.run(["ip", "-6", "route", "add", networks.get("six").subnet6, "via", "2001:db8:7::1"], check=True)
    assert world.can_not(world.lan, six.lease.ip6, 80, server)


def test_networks_are_apart(six: Workload, world: World, networks: Networks) -> None:
    networks.create(NetworkRequest("apart", ipv6=True))
    networks.create(NetworkRequest("inner", ipv6=True, internal=True))
    server = six.listen(80, address=ANY6)
    for name, network in (("b", "apart"), ("c", "inner")):
        other = world.workload(networks, name, network)
        assert world.can_not(other.netns, six.lease.ip6, 80, server)
        assert world.can_not(six.netns, other.lease.ip6, 80, other.listen(80, address=ANY6))
    inner = world.workload(networks, "d", "inner")
    assert (inner.lease.gateway, inner.lease.gateway6) == ("", "")
    with world.inside(world.lan):
        outside = world.server("2001:db8:7::2", 7000)
    assert world.can_not(inner.netns, "2001:db8:7::2", 7000, outside)


def test_flushed_rules_come_back(six: Workload, world: World, networks: Networks, paths: Paths) -> None:
    networks.publish(A, [PortRequest(80, host_port="8080")])
    networks.reconcile()
    before = nft("list", "ruleset")
    assert f"table ip6 {paths.scope}" in before
    for damage in ("flush ruleset", f"delete table ip6 {paths.scope}", f"flush map ip6 {paths.scope} published"):
        nft(damage)
        networks.reconcile()
        assert nft("list", "ruleset") == before


def test_with_the_last_network_of_ipv6_its_table_goes(six: Workload, networks: Networks, paths: Paths) -> None:
    networks.release(A)
    networks.remove("six")
    assert "ip6" not in nft("list", "tables")
    networks.create(NetworkRequest("again", ipv6=True))
    networks.teardown()
    assert nft("list", "ruleset") == ""


def test_addresses_of_ones_choice(world: World, networks: Networks) -> None:
    request = NetworkRequest(
        "mine", [IpamPool("10.9.0.0/24", ip_range="10.9.0.128/25"), IpamPool("fd12::/64", "fd12::ff")], ipv6=True
    )
    made = networks.create(request)
    assert (made.subnet6, made.gateway6, made.gateway) == ("fd12::/64", "fd12::ff", "10.9.0.1")
    lease = networks.lease(A, "mine", address="10.9.0.7", address6="fd12::7", mac="02:00:00:00:00:07")
    assert (lease.address, lease.address6, lease.mac) == ("10.9.0.7/24", "fd12::7/64", "02:00:00:00:00:07")
    assert networks.lease(B, "mine").address == "10.9.0.128/24"
    inside = world.workload(networks, "a", "mine")
    with world.inside(inside.netns):
        assert {"10.9.0.7/24", "fd12::7/64"} <= set(links.addresses()["eth0"])
        assert links.links()["eth0"].mac == "02:00:00:00:00:07"


def test_a_forward_chain_that_drops_is_opened_for_us(world: World, networks: Networks) -> None:
    subprocess.run(["ip6tables-nft", "-P", "FORWARD", "DROP"], check=True)
    before = subprocess.run(["ip6tables-nft", "-S"], check=True, capture_output=True, text=True).stdout
    world.add_neighbour()
    networks.create(NetworkRequest("six", ipv6=True))
    inside = world.workload(networks, "a", "six")
    with world.inside(world.lan):
        server = world.server("2001:db8:7::2", 7000)
    assert world.ask(inside.netns, "2001:db8:7::2", 7000, server) == "2001:db8:7::1"
    assert networks.examine().problems == []
    networks.teardown()
    assert subprocess.run(["ip6tables-nft", "-S"], check=True, capture_output=True, text=True).stdout == before
