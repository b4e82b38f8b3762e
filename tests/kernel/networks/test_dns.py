"""Names in real network namespaces: who is answered at which address, by which protocol, past which firewalls."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from bothy.linux import channel, links
from bothy.networks.dns import SOCKET, listening, table
from bothy.networks.dns.listening import Listening
from bothy.networks.dns.table import Endpoint
from bothy.networks.model import NetworkRequest, PortRequest
from bothy.networks.service import Networks
from bothy.paths import Paths
from tests.kernel.networks.conftest import World
from tests.support.engine import await_

HOST = "host.bothy.internal"
PATIENCE = 5.0


class Names:
    """A server process, told of every network as bothyd tells it."""

    def __init__(self, networks: Networks, paths: Paths, resolv: Path) -> None:
        self.networks, self.paths, self.resolv = networks, paths, resolv
        os.makedirs(table.folder(paths), exist_ok=True)
        self.start()
        networks.names.on_serve = self.serve
        networks.names.on_drop = lambda network: channel.send(self.link, {"op": "drop", "network": network})

    def start(self) -> None:
        listener = channel.listen(str(self.paths.run), SOCKET)
        argv = listening.argv(str(self.paths.run), listener.fileno(), str(self.resolv))
        self.process = subprocess.Popen(argv, pass_fds=[listener.fileno()])
        listener.close()
        self.link = channel.connect(str(self.paths.run), SOCKET)
        for network in self.networks.names.all():
            self.serve(network)

    def serve(self, network: Listening) -> None:
        channel.send(self.link, {"op": "serve", "network": network.told}, network.fds())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.link.close()

    def tell(self, world: World, network: str, workload: str) -> str:
        """A workload on a network, with its name; its address."""
        lease = self.networks.lease(workload * 64, network)
        table.tell(self.paths, workload * 64, [Endpoint(lease.network, lease.addresses, [f"name-{workload}"])])
        return lease.ip


@pytest.fixture
def served(networks: Networks, paths: Paths, tmp_path: Path) -> Iterator[Names]:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("")
    served = Names(networks, paths, resolv)
    yield served
    served.kill()


def look_up(
    world: World,
    netns: int,
    server: str,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    port: int = 53,
    patience: float = PATIENCE,
) -> list[str] | int:
    """The records, or the code of an error. OSError (TimeoutError) when nobody answers."""
    data = dns.message.make_query(name, kind).to_wire()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with world.inside(netns):
        sock = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(patience)
        sock.connect((server, port))
        if tcp:
            sock.sendall(len(data).to_bytes(2, "big") + data)
            with sock.makefile("rb") as stream:
                heard = stream.read(int.from_bytes(stream.read(2), "big"))
        else:
            sock.send(data)
            heard = sock.recv(4096)
    answer = dns.message.from_wire(heard)
    return [str(r) for rrset in answer.answer for r in rrset] if answer.rcode() == dns.rcode.NOERROR else int(answer.rcode())


def is_silent(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except OSError:
        return True
    return False


def nft(*words: str) -> str:
    return subprocess.run(["nft", *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_workload_finds_the_others_at_its_gateway(world: World, networks: Networks, served: Names, tcp: bool) -> None:
    a = world.workload(networks, "a")
    other = served.tell(world, "bridge", "b")
    assert look_up(world, a.netns, a.lease.gateway, "name-b", tcp=tcp) == [other]
    assert look_up(world, a.netns, a.lease.gateway, "name-b.bridge", tcp=tcp) == [other]
    assert look_up(world, a.netns, a.lease.gateway, HOST, tcp=tcp) == [a.lease.gateway]
    assert look_up(world, a.netns, a.lease.gateway, ".".join(reversed(other.split("."))) + ".in-addr.arpa", "PTR", tcp=tcp) == [
        "name-b.bridge."
    ]
    assert look_up(world, a.netns, a.lease.gateway, "nobody.example", tcp=tcp) == dns.rcode.SERVFAIL


def test_names_come_and_go_at_once(world: World, networks: Networks, paths: Paths, served: Names) -> None:
    a = world.workload(networks, "a")
    gateway = a.lease.gateway
    for _ in range(50):
        address = served.tell(world, "bridge", "b")
        assert look_up(world, a.netns, gateway, "name-b") == [address]
        table.forget(paths, "b" * 64)
        networks.release("b" * 64)
        assert look_up(world, a.netns, gateway, "name-b") == dns.rcode.SERVFAIL


def test_a_network_is_told_its_own_names_only(world: World, networks: Networks, served: Names) -> None:
    networks.create(NetworkRequest("one"))
    networks.create(NetworkRequest("two", internal=True))
    a, b = world.workload(networks, "a", "one"), world.workload(networks, "b", "two")
    served.tell(world, "one", "a")
    served.tell(world, "two", "b")
    two = networks.get("two").gateway
    assert look_up(world, b.netns, two, "name-b") == [b.lease.ip]
    assert look_up(world, b.netns, two, "name-a") == dns.rcode.NXDOMAIN
    assert look_up(world, a.netns, a.lease.gateway, "name-b") == dns.rcode.SERVFAIL
    # whichever gateway it asks, the network that it is on answers
    assert look_up(world, a.netns, two, "name-a") == [a.lease.ip]
    assert look_up(world, a.netns, two, "name-b") == dns.rcode.SERVFAIL
    # nor does it reach the socket of the other one
    assert is_silent(lambda: look_up(world, a.netns, two, "name-b", port=listening.PORT, patience=0.3))
    assert is_silent(lambda: look_up(world, a.netns, two, "name-b", port=listening.PORT, patience=0.3, tcp=True))


def test_a_neighbour_of_the_host_learns_nothing(world: World, networks: Networks, served: Names) -> None:
    world.add_neighbour()
    a = world.workload(networks, "a")
    served.tell(world, "bridge", "a")
    with world.inside(world.lan):
        subprocess.run(["ip", "route", "add", networks.get("bridge").subnet, "via", "198.51.100.1"], check=True)
    for port in (53, listening.PORT):
        for tcp in (False, True):
            assert is_silent(lambda: look_up(world, world.lan, a.lease.gateway, "name-a", port=port, tcp=tcp, patience=0.3))  # noqa: B023


def test_on_both_versions_of_ip(world: World, networks: Networks, served: Names) -> None:
    networks.create(NetworkRequest("six", ipv6=True))
    a = world.workload(networks, "a", "six")
    served.tell(world, "six", "a")
    for tcp in (False, True):
        assert look_up(world, a.netns, a.lease.gateway6, "name-a", "AAAA", tcp=tcp) == [a.lease.ip6]
        assert look_up(world, a.netns, a.lease.gateway, "name-a", "AAAA", tcp=tcp) == [a.lease.ip6]
        assert look_up(world, a.netns, a.lease.gateway6, "name-a", tcp=tcp) == [a.lease.ip]


def test_who_publishes_port_53_answers_the_world_and_not_for_us(world: World, networks: Networks, served: Names) -> None:
    a, b = world.workload(networks, "a"), world.workload(networks, "b")
    served.tell(world, "bridge", "a")
    own = b.listen(53, socket.SOCK_DGRAM)
    networks.publish("b" * 64, [PortRequest(53, "udp", host_port="53"), PortRequest(53, "tcp", host_port="53")])
    assert world.ask(world.host, "127.0.0.1", 53, own)
    assert look_up(world, a.netns, a.lease.gateway, "name-a") == [a.lease.ip]
    assert look_up(world, a.netns, a.lease.gateway, "name-a", tcp=True) == [a.lease.ip]


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_dns_server_of_the_host_may_have_port_53(world: World, networks: Networks, served: Names, first: bool) -> None:
    with ExitStack() as stack:
        for order in (first, not first):
            if order:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    stack.enter_context(world.server("0.0.0.0", 53, kind))
            else:
                a = world.workload(networks, "a")
                served.tell(world, "bridge", "a")
        assert look_up(world, a.netns, a.lease.gateway, "name-a") == [a.lease.ip]


def test_another_port_will_do_where_ours_is_taken(world: World, networks: Networks, served: Names) -> None:
    world.server("0.0.0.0", listening.PORT, socket.SOCK_STREAM)
    a = world.workload(networks, "a")
    served.tell(world, "bridge", "a")
    assert listening.PORT not in networks.names.ports(a.lease.network).values()
    for tcp in (False, True):
        assert look_up(world, a.netns, a.lease.gateway, "name-a", tcp=tcp) == [a.lease.ip]


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_an_input_chain_that_drops_lets_queries_in(world: World, networks: Networks, served: Names, program: str) -> None:
    def iptables(*words: str) -> str:
        return subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout

    iptables("-P", "INPUT", "DROP")
    before = iptables("-S")
    a = world.workload(networks, "a")
    served.tell(world, "bridge", "a")
    for tcp in (False, True):
        assert look_up(world, a.netns, a.lease.gateway, "name-a", tcp=tcp) == [a.lease.ip]
    opened = iptables("-S")
    networks.reconcile()
    assert iptables("-S") == opened
    assert world.can_not(a.netns, a.lease.gateway, 7000, world.server("0.0.0.0", 7000))
    assert not networks.examine().problems
    iptables("-F", "INPUT")
    assert [p.message for p in networks.examine().problems] == [f"the INPUT chain of {program} drops its queries for names"]
    networks.teardown()
    assert iptables("-S") == before


def test_what_is_asked_while_the_server_is_dead_is_answered_by_the_next(world: World, networks: Networks, served: Names) -> None:
    a = world.workload(networks, "a")
    served.tell(world, "bridge", "a")
    assert look_up(world, a.netns, a.lease.gateway, "name-a") == [a.lease.ip]
    served.kill()
    data = dns.message.make_query("name-a", "A").to_wire()
    with world.inside(a.netns):
        client, talker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    with client, talker:
        client.settimeout(PATIENCE)
        talker.settimeout(PATIENCE)
        client.connect((a.lease.gateway, 53))
        client.send(data)
        talker.connect((a.lease.gateway, 53))
        talker.send(len(data).to_bytes(2, "big") + data)
        served.start()
        assert str(dns.message.from_wire(client.recv(512)).answer[0][0]) == a.lease.ip
        assert str(dns.message.from_wire(talker.recv(512)[2:]).answer[0][0]) == a.lease.ip


def test_a_daemon_that_comes_back_takes_the_sockets_over(world: World, networks: Networks, paths: Paths, served: Names) -> None:
    a = world.workload(networks, "a")
    served.tell(world, "bridge", "a")
    look_up(world, a.netns, a.lease.gateway, "name-a")
    networks.close()
    served.link.close()
    served.link = channel.connect(str(paths.run), SOCKET)
    channel.send(served.link, {"op": "take", "seq": 1})
    again = Networks(paths)
    while "seq" not in (message := channel.receive(served.link))[0]:  # type: ignore[operator]
        assert message[0]
        again.names.adopt(str(message[0]["network"]), message[1])
    before = nft("list", "table", "ip", paths.scope)
    again.adopt(a.lease)
    again.reconcile()
    assert again.names.forget_left() == []
    assert nft("list", "table", "ip", paths.scope) == before
    assert look_up(world, a.netns, a.lease.gateway, "name-a") == [a.lease.ip]
    again.close()


def test_sockets_of_a_bridge_that_is_no_more_are_not_taken_over(
    world: World, networks: Networks, paths: Paths, served: Names
) -> None:
    a = world.workload(networks, "a")
    left = [os.dup(fd) for fd in networks.names.all()[0].fds()]
    networks.teardown()
    networks.names.adopt(a.lease.network, left)
    b = world.workload(networks, "b")
    served.tell(world, "bridge", "b")
    assert networks.names.forget_left() == []
    assert look_up(world, b.netns, b.lease.gateway, "name-b") == [b.lease.ip]


def test_a_bridge_that_was_made_anew_is_served_again(world: World, networks: Networks, served: Names) -> None:
    a = world.workload(networks, "a")
    links.delete_link(a.lease.bridge)
    networks.release("a" * 64)
    b = world.workload(networks, "b")
    served.tell(world, "bridge", "b")
    assert look_up(world, b.netns, b.lease.gateway, "name-b") == [b.lease.ip]


def test_a_network_that_is_removed_is_served_no_more(world: World, networks: Networks, served: Names) -> None:
    a = world.workload(networks, "a")
    assert look_up(world, a.netns, a.lease.gateway, HOST) == [a.lease.gateway]
    before = len(os.listdir(f"/proc/{served.process.pid}/fd"))
    networks.create(NetworkRequest("one"))
    await_(lambda: len(os.listdir(f"/proc/{served.process.pid}/fd")) == before + 2, "the network to be served")
    networks.remove("one")
    await_(lambda: len(os.listdir(f"/proc/{served.process.pid}/fd")) == before, "its sockets to be closed")


def test_other_names_are_asked_for_from_the_host(world: World, networks: Networks, served: Names) -> None:
    """Where the host's own server is at its loopback, too, which no workload can reach."""
    a = world.workload(networks, "a")
    resolver = world.server("127.0.0.53", 53, socket.SOCK_DGRAM)
    served.resolv.write_text("nameserver 127.0.0.53\n")
    query = dns.message.make_query("example.com", "A", use_edns=0, payload=1400)
    with world.inside(a.netns):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(PATIENCE)
        client.connect((a.lease.gateway, 53))
        client.send(query.to_wire())
        asked, source = resolver.recvfrom(4096)
        assert asked[2:] == query.to_wire()[2:]
        answer = dns.message.make_response(dns.message.from_wire(asked))
        resolver.sendto(answer.to_wire(), source)
        assert dns.message.from_wire(client.recv(4096)).id == query.id


def test_it_has_no_power_and_ends_with_its_folder(networks: Networks, paths: Paths, served: Names) -> None:
    networks.ensure_default()
    await_(lambda: Path(f"/proc/{served.process.pid}/comm").read_text() == "bothy-names\n", "the server")
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    await_(
        lambda: "CapBnd:\t0000000000000000" in Path(f"/proc/{served.process.pid}/status").read_text(), "its powers to be dropped"
    )
    assert "Threads:\t1\n" in status
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert all(f"{name}:\t0000000000000000" in status for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    os.rmdir(table.folder(paths))
    assert served.process.wait(PATIENCE) == 0
