"""Names of workloads, over both walls: found by the others on their networks, from the first moment to the last."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine, await_, kill9
from tests.support.settle import reap

SERVER = "bothy-names"
# asks from inside a network namespace, but is no part of the engine
ASK = """
import socket, sys
import dns.message
query = dns.message.make_query(sys.argv[2], sys.argv[3])
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(20)
asker.connect((sys.argv[1], 53))
asker.send(query.to_wire())
answer = dns.message.from_wire(asker.recv(4096))
print(answer.rcode(), *(record for rrset in answer.answer for record in rrset))
"""


def address(engine: TestEngine, name: str, network: str = "bridge") -> str:
    return str(engine.inspect(name)["NetworkSettings"]["Networks"][network]["IPAddress"])


def ask(engine: TestEngine, where: str, name: str, kind: str = "A") -> list[str]:
    """The code and the records that a running container gets, asked with nobody's help."""
    seen = engine.inspect(where)
    gateway = next(iter(seen["NetworkSettings"]["Networks"].values()))["Gateway"]
    return ask_inside(seen["State"]["Pid"], gateway, name, kind)


def ask_inside(pid: int, gateway: str, name: str, kind: str = "A") -> list[str]:
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", ASK, gateway, name, kind]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture
def asker(settled: TestEngine) -> TestEngine:
    """The engine, with a container `n-asker` on the default network."""
    settled("run", "-d", "--name", "n-asker", "busybox", "sleep", "600").ok()
    return settled


@contextlib.contextmanager
def network(engine: TestEngine, name: str, *flags: str) -> Iterator[str]:
    engine("network", "create", *flags, name).ok()
    try:
        yield name
    finally:
        if left := engine("ps", "-aq", "--filter", f"network={name}").out.split():
            engine("rm", "-f", *left).ok()
        engine("network", "rm", name).ok()


def test_both_walls_find_each_other(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "n-here", "busybox", "sleep", "600").ok()
    bothy.engine("run", "-d", "--name", "n-there", "busybox", "sleep", "600").ok()
    here, there = address(bothy.engine, "n-here"), address(bothy.engine, "n-there")
    for asks, name, found in (("n-here", "n-there", there), ("n-there", "n-here", here), ("n-here", "n-here", here)):
        out = bothy("exec", asks, "ping", "-c1", "-W5", name).ok().out
        assert f"({found})" in out
        assert found in bothy("exec", asks, "nslookup", name).ok().out
    short = bothy.engine.inspect("n-here")["Id"][:12]
    assert here in bothy("exec", "n-there", "nslookup", short).ok().out
    assert "n-there.bridge" in bothy("exec", "n-here", "nslookup", there).ok().out


def test_a_program_finds_others_from_its_first_moment(bothy: Walled) -> None:
    bothy.engine("run", "-d", "--name", "n-first", "busybox", "sleep", "600").ok()
    assert bothy("run", "--rm", "busybox", "ping", "-c1", "-W5", "n-first").code == 0


def test_names_come_and_go_with_their_workloads(bothy: Walled) -> None:
    bothy.engine("run", "-d", "--name", "n-asker", "busybox", "sleep", "600").ok()
    code, *_ = ask(bothy.engine, "n-asker", "n-brief")
    assert code != "0"
    for _ in range(2 if bothy.wall == "vm" else 5):
        bothy("run", "-d", "--name", "n-brief", "busybox", "sleep", "600").ok()
        assert ask(bothy.engine, "n-asker", "n-brief") == ["0", address(bothy.engine, "n-brief")]
        assert ask(bothy.engine, "n-asker", "n-brief", "AAAA") == ["0"]
        bothy("stop", "-t", "0", "n-brief").ok()
        assert ask(bothy.engine, "n-asker", "n-brief")[0] != "0"
        bothy("rm", "n-brief").ok()


def test_one_that_ends_by_itself_is_gone(asker: TestEngine) -> None:
    asker("run", "--name", "n-self", "busybox", "true").ok()
    assert ask(asker, "n-asker", "n-self")[0] != "0"


def test_a_new_name_takes_the_place_of_the_old(asker: TestEngine) -> None:
    asker("run", "-d", "--name", "n-old", "busybox", "sleep", "600").ok()
    asker("rename", "n-old", "n-new").ok()
    assert ask(asker, "n-asker", "n-new") == ["0", address(asker, "n-new")]
    assert ask(asker, "n-asker", "n-old")[0] != "0"


def test_aliases_are_shared(asker: TestEngine) -> None:
    with network(asker, "n-net") as net:
        for name in ("n-one", "n-two"):
            asker("run", "-d", "--name", name, "--network", net, "--network-alias", "workers", "busybox", "sleep", "600").ok()
        both = {address(asker, name, net) for name in ("n-one", "n-two")}
        firsts = set()
        for _ in range(2):
            code, *found = ask(asker, "n-one", "workers")
            assert (code, set(found)) == ("0", both)
            firsts.add(found[0])
        assert firsts == both
        asker("rm", "-f", "n-two").ok()
        assert ask(asker, "n-one", "workers") == ["0", address(asker, "n-one", net)]
        assert ask(asker, "n-one", "workers.n-net") == ["0", address(asker, "n-one", net)]
        assert ask(asker, "n-asker", "workers")[0] != "0"


def test_connect_and_disconnect_change_what_is_found(asker: TestEngine) -> None:
    with network(asker, "n-net") as net:
        asker("run", "-d", "--name", "n-far", "--network", net, "busybox", "sleep", "600").ok()
        assert ask(asker, "n-asker", "n-far")[0] != "0"
        asker("network", "connect", net, "n-asker").ok()
        assert ask(asker, "n-asker", "n-far") == ["0", address(asker, "n-far", net)]
        assert ask(asker, "n-far", "n-asker") == ["0", address(asker, "n-asker", net)]
        asker("network", "disconnect", "bridge", "n-asker").ok()
        # its resolv.conf names a gateway of a network that it has left
        assert address(asker, "n-far", net) in asker("exec", "n-asker", "nslookup", "n-far").ok().out
        asker("network", "disconnect", net, "n-asker").ok()
        assert ask(asker, "n-far", "n-asker")[0] != "0"


def test_an_internal_network_knows_its_own_names_only(asker: TestEngine) -> None:
    with network(asker, "n-vault", "--internal") as net:
        asker("run", "-d", "--name", "n-in", "--network", net, "busybox", "sleep", "600").ok()
        out = asker("run", "--rm", "--network", net, "busybox", "nslookup", "n-in").ok().out
        assert address(asker, "n-in", net) in out
        done = asker("run", "--rm", "--network", net, "busybox", "nslookup", "example.com")
        assert done.code
        assert "NXDOMAIN" in done.out + done.err


def test_without_a_network_there_is_no_server(settled: TestEngine) -> None:
    out = settled("run", "--rm", "--network", "none", "busybox", "cat", "/etc/resolv.conf").ok().out
    assert "ndots" not in out
    assert (
        settled("run", "--rm", "--network", "host", "busybox", "cat", "/etc/resolv.conf").ok().out
        == Path("/etc/resolv.conf").read_text()
    )


# -- processes that die


def test_the_server_dies_and_nobody_notices(asker: TestEngine) -> None:
    asker("run", "-d", "--name", "n-other", "busybox", "sleep", "600").ok()
    other = ["0", address(asker, "n-other")]
    for _ in range(3):
        old = asker.pid_of(SERVER)
        kill9(old)
        assert ask(asker, "n-asker", "n-other") == other
        assert asker.pid_of(SERVER) != old


def test_the_daemon_dies_and_the_server_goes_on(asker: TestEngine) -> None:
    server, daemon, spawner = (asker.pid_of(name) for name in (SERVER, "bothyd", "bothy-spawner"))
    asker("run", "-d", "--name", "n-other", "busybox", "sleep", "600").ok()
    seen, other = asker.inspect("n-asker"), ["0", address(asker, "n-other")]
    kill9(spawner)
    kill9(daemon)
    gateway = seen["NetworkSettings"]["Gateway"]
    assert ask_inside(seen["State"]["Pid"], gateway, "n-other") == other
    asker("run", "-d", "--name", "n-third", "busybox", "sleep", "600").ok()
    assert ask(asker, "n-asker", "n-third") == ["0", address(asker, "n-third")]
    assert asker.pid_of(SERVER) == server


def test_all_die_and_the_next_daemon_serves_again(asker: TestEngine) -> None:
    asker("run", "-d", "--name", "n-other", "busybox", "sleep", "600").ok()
    other = ["0", address(asker, "n-other")]
    for name in ("bothy-spawner", "bothyd", SERVER):
        kill9(asker.pid_of(name))
    await_(lambda: reap() or asker("version").code == 0, "the daemon")
    assert ask(asker, "n-asker", "n-other") == other
    assert asker("exec", "n-asker", "ping", "-c1", "-W5", "n-other").code == 0


def test_an_end_of_the_engine_is_no_end_of_names(another: Callable[..., TestEngine]) -> None:
    engine = another()
    engine("image", "bootstrap", "busybox").ok()
    for name in ("n-one", "n-two"):
        engine("run", "-d", "--name", name, "busybox", "sleep", "600").ok()
    seen, two = engine.inspect("n-one"), ["0", address(engine, "n-two")]
    pid, gateway = seen["State"]["Pid"], seen["NetworkSettings"]["Gateway"]
    server = engine.pid_of(SERVER)
    engine("system", "shutdown").ok()
    await_(lambda: reap() or "bothyd" not in engine.processes().values(), "the daemon's end")
    assert ask_inside(pid, gateway, "n-two") == two
    engine("rm", "-f", "n-two").ok()
    assert engine.pid_of(SERVER) == server
    assert ask_inside(pid, gateway, "n-two")[0] != "0"
    engine("rm", "-f", "n-one").ok()
    engine("system", "shutdown").ok()
    await_(lambda: reap() or not engine.processes(), "everything to end")
    assert not (engine.run_folder / "names.sock").exists()


# -- the world


@pytest.fixture
def world() -> Iterator[Callable[[str, str], list[str]]]:
    """Makes DNS servers at the host's loopback; each knows one address for every name, and notes what it was asked."""
    ends: list[socket.socket] = []
    threads = []

    def serve(sock: socket.socket, end: socket.socket, known: str, asked: list[str]) -> None:
        while sock in select.select([sock, end], [], [])[0]:
            data, source = sock.recvfrom(4096)
            query = dns.message.from_wire(data)
            asked.append(query.question[0].name.to_text())
            answer = dns.message.make_response(query)
            if query.question[0].rdtype == 1:
                answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", known))
            sock.sendto(answer.to_wire(), source)
        sock.close()
        end.close()

    def make(at: str, known: str) -> list[str]:
        asked: list[str] = []
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((at, 53))
        ours, theirs = socket.socketpair()
        ends.append(ours)
        threads.append(threading.Thread(target=serve, args=(sock, theirs, known, asked)))
        threads[-1].start()
        return asked

    yield make
    for end in ends:
        end.close()
    for thread in threads:
        thread.join()


def test_the_hosts_servers_and_ones_own(
    another: Callable[..., TestEngine], world: Callable[[str, str], list[str]], tmp_path: Path
) -> None:
    asked, own = world("127.77.0.1", "192.0.2.1"), world("127.77.0.2", "192.0.2.2")
    (tmp_path / "resolv.conf").write_text("nameserver 127.77.0.1\nsearch example.com\n")
    engine = another(extra={"BOTHY_RESOLV_CONF": str(tmp_path / "resolv.conf")})
    engine("image", "bootstrap", "busybox").ok()
    out = engine("run", "--rm", "busybox", "sh", "-c", "nslookup www.example.com; cat /etc/resolv.conf").ok().out
    assert "192.0.2.1" in out
    assert "search example.com\noptions ndots:0\n" in out
    assert "www.example.com." in asked
    assert "192.0.2.2" in engine("run", "--rm", "--dns", "127.77.0.2", "busybox", "nslookup", "www.example.com").ok().out
    assert own
    (tmp_path / "resolv.conf").write_text("nameserver 127.77.0.2\n")
    assert "192.0.2.2" in engine("run", "--rm", "busybox", "nslookup", "www.example.com").ok().out
