"""The default bridge network: addresses, routes, names, published ports; none and host."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import urllib.request

import pytest

from bothy.paths import Paths
from tests.e2e.conftest import Walled
from tests.support.engine import await_

SERVE = "mkdir -p /www; echo hello from $(hostname) > /www/index.html; exec httpd -f -p 80 -h /www"


def fetch(url: str) -> str:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
        return str(reply.read().decode())
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_address_route_and_dns_file(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-net", "busybox", "sleep", "300").ok()
    seen = bothy.engine.inspect("t-net")["NetworkSettings"]
    out = (
        bothy(
            "exec", "t-net", "sh", "-c", "ip -o -4 addr show eth0; ip route; cat /etc/resolv.conf; cat /sys/class/net/eth0/address"
        )
        .ok()
        .out
    )
    assert f"{seen['IPAddress']}/{seen['IPPrefixLen']}" in out
    assert f"default via {seen['Gateway']}" in out
    assert seen["MacAddress"] in out
    assert bothy("exec", "t-net", "ping", "-c1", "-W5", seen["Gateway"]).code == 0
    bothy("rm", "-f", "t-net").ok()


def test_host_reaches_the_address(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-web", "--hostname", "web", "busybox", "sh", "-c", SERVE).ok()
    address = bothy.engine.inspect("t-web")["NetworkSettings"]["IPAddress"]
    await_(lambda: fetch(f"http://{address}/") == "hello from web\n", "the web server", timeout=60)
    bothy("rm", "-f", "t-web").ok()


def test_published_on_loopback_only(bothy: Walled) -> None:
    port = free_port()
    bothy("run", "-d", "--name", "t-pub", "--hostname", "pub", "-p", f"127.0.0.1:{port}:80", "busybox", "sh", "-c", SERVE).ok()
    await_(lambda: fetch(f"http://127.0.0.1:{port}/") == "hello from pub\n", "the published port", timeout=60)
    assert bothy("port", "t-pub").ok().line == f"80/tcp -> 127.0.0.1:{port}"
    gateway = bothy.engine.inspect("t-pub")["NetworkSettings"]["Gateway"]
    assert fetch(f"http://{gateway}:{port}/") == ""
    bothy("rm", "-f", "t-pub").ok()
    assert fetch(f"http://127.0.0.1:{port}/") == ""


def test_published_everywhere_and_hairpin(bothy: Walled) -> None:
    port = free_port()
    bothy("run", "-d", "--name", "t-all", "--hostname", "all", "-p", f"{port}:80/tcp", "busybox", "sh", "-c", SERVE).ok()
    await_(lambda: fetch(f"http://127.0.0.1:{port}/"), "the published port", timeout=60)
    gateway = bothy.engine.inspect("t-all")["NetworkSettings"]["Gateway"]
    assert fetch(f"http://{gateway}:{port}/") == "hello from all\n"
    assert bothy("exec", "t-all", "wget", "-qO-", f"http://{gateway}:{port}/").ok().out == "hello from all\n"
    other = bothy("run", "--rm", "busybox", "wget", "-qO-", f"http://{gateway}:{port}/")
    assert other.ok().out == "hello from all\n"
    bothy("rm", "-f", "t-all").ok()


def test_a_random_port_and_a_range(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-rand", "-p", "80", "busybox", "sh", "-c", SERVE).ok()
    binding = bothy.engine.inspect("t-rand")["NetworkSettings"]["Ports"]["80/tcp"][0]
    await_(lambda: fetch(f"http://127.0.0.1:{binding['HostPort']}/"), "the random port", timeout=60)
    first = free_port()
    bothy("run", "-d", "--name", "t-range", "-p", f"127.0.0.1:{first}-{first + 2}:8000-8002", "busybox", "sleep", "300").ok()
    ports = bothy.engine.inspect("t-range")["NetworkSettings"]["Ports"]
    assert [int(ports[f"{8000 + n}/tcp"][0]["HostPort"]) - first for n in range(3)] == [0, 1, 2]
    bothy("rm", "-f", "t-rand", "t-range").ok()


UDP_ECHO = """
use IO::Socket::INET;
my $s = IO::Socket::INET->new(LocalPort => 53, Proto => "udp") or die;
while (defined $s->recv(my $data, 1500)) { $s->send($data) }
"""


def test_udp(bothy: Walled, debian: str) -> None:
    port = free_port()
    bothy("run", "-d", "--name", "t-udp", "-p", f"127.0.0.1:{port}:53/udp", debian, "perl", "-e", UDP_ECHO).ok()

    def echoed() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect(("127.0.0.1", port))
            with contextlib.suppress(OSError):
                client.send(b"ping")
                return client.recv(100) == b"ping"
        return False

    await_(echoed, "the udp echo", timeout=60)
    bothy("rm", "-f", "t-udp").ok()


def test_a_port_in_use_is_told_and_nothing_is_left(bothy: Walled) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = bothy("run", "-d", "--name", "t-conflict", "-p", f"127.0.0.1:{port}:80", "busybox", "sleep", "300")
        assert done.code == 125
        assert str(port) in done.err
    bothy("rm", "-f", "t-conflict")


def test_workloads_reach_each_other_over_both_walls(bothy: Walled) -> None:
    bothy.engine("run", "-d", "--name", "t-c", "--hostname", "c", "busybox", "sh", "-c", SERVE).ok()
    bothy.engine("run", "-d", "--vm", "--name", "t-m", "--hostname", "m", "busybox", "sh", "-c", SERVE).ok()
    for name in ("c", "m"):
        address = bothy.engine.inspect(f"t-{name}")["NetworkSettings"]["IPAddress"]
        await_(lambda url=f"http://{address}/": fetch(url), f"{name}'s web server", timeout=60)  # type: ignore[misc]
        assert bothy("run", "--rm", "busybox", "wget", "-qO-", f"http://{address}/").ok().out == f"hello from {name}\n"
    bothy.engine("rm", "-f", "t-c", "t-m").ok()


def test_network_none(bothy: Walled) -> None:
    out = bothy("run", "--rm", "--network", "none", "busybox", "sh", "-c", "ls /sys/class/net; ip -o -4 addr").ok().out
    assert "lo" in out.split()
    assert "eth0" not in out


def test_network_host(bothy: Walled) -> None:
    done = bothy("run", "--rm", "--network", "host", "busybox", "sh", "-c", "ls /proc/sys/net/ipv4/conf")
    if bothy.wall == "vm":
        assert done.code == 125
        assert "host" in done.err
    else:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            one.listen()
            port = one.getsockname()[1]
            assert f":{port:04X}" in bothy("run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/tcp").ok().out


def test_outgoing_traffic_is_translated(bothy: Walled) -> None:
    """A host beyond ours, in a network namespace of the test's, sees our address, not the workload's."""
    ns, link = "bothy-t-out", "bothyt0"
    commands = [
        f"ip netns add {ns}", f"ip link add {link} type veth peer name eth0 netns {ns}", f"ip addr add 198.18.7.1/30 dev {link}",
        f"ip link set {link} up", f"ip -n {ns} addr add 198.18.7.2/30 dev eth0", f"ip -n {ns} link set eth0 up", f"ip -n {ns} link set lo up",
    ]  # fmt: skip
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        server = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{ns}", "python3", "-c",
             "import socket; s = socket.create_server(('198.18.7.2', 8080)); print('up', flush=True); c, a = s.accept(); c.sendall(a[0].encode()); c.close()"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert server.stdout
        assert server.stdout.readline() == b"up\n"
        assert bothy("run", "--rm", "busybox", "nc", "198.18.7.2", "8080").ok().out == "198.18.7.1"
        server.stdout.close()
        assert server.wait(20) == 0
    finally:
        subprocess.run(["ip", "netns", "del", ns], check=False)
        subprocess.run(["ip", "link", "del", link], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("flag", ["80:80:80:80", "99999:80", "a:b", "80:80/xyz", "1-3:1-2"])
def test_bad_port_flags(bothy: Walled, flag: str) -> None:
    done = bothy("run", "--rm", "-p", flag, "busybox", "true")
    assert done.code == 125
    assert flag in done.err or flag.split(":")[0] in done.err


@pytest.mark.parametrize("damage", ["delete table ip {scope}", "flush map ip {scope} published", "flush chain ip {scope} output"])
def test_rules_that_somebody_takes_away_come_back(bothy: Walled, damage: str) -> None:
    port, engine = free_port(), bothy.engine
    scope = Paths(engine.root, engine.run_folder).scope
    bothy("run", "-d", "--name", "t-back", "--hostname", "back", "-p", f"{port}:80", "busybox", "sh", "-c", SERVE).ok()
    gateway = engine.inspect("t-back")["NetworkSettings"]["Gateway"]
    await_(lambda: fetch(f"http://127.0.0.1:{port}/") == "hello from back\n", "the published port", timeout=60)
    subprocess.run(["nft", damage.format(scope=scope)], check=True)
    await_(lambda: fetch(f"http://127.0.0.1:{port}/") == "hello from back\n", "the port by loopback")
    assert fetch(f"http://{gateway}:{port}/") == "hello from back\n"
    assert bothy("exec", "t-back", "wget", "-qO-", f"http://{gateway}:{port}/").ok().out == "hello from back\n"
    assert bothy("exec", "t-back", "nslookup", "t-back").code == 0
    bothy("rm", "-f", "t-back").ok()
