"""Networks of one's own, over both walls: made and removed, several for a workload, isolation from inside, ports that come and go."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Walled
from tests.e2e.test_network import SERVE, fetch, free_port
from tests.support.engine import TestEngine, await_

Make = Callable[..., str]


@pytest.fixture
def make(engine: TestEngine) -> Iterator[Make]:
    """Makes a network of that name, with flags; all are removed after the test, and what is on them before."""
    made = []

    def network(name: str, *flags: str) -> str:
        made.append(name)
        return engine("network", "create", *flags, name).ok().line

    yield network
    names = engine("ps", "-aq").out.split()
    if names:
        engine("rm", "-fv", *names).ok()
    engine("network", "rm", "-f", *made).ok()


def serve(bothy: Walled, name: str, *flags: str) -> dict[str, str]:
    """A web server that says its name; its networks as inspect shows them."""
    bothy("run", "-d", "--name", name, "--hostname", name, *flags, "busybox", "sh", "-c", SERVE).ok()
    settings = bothy.engine.inspect(name)["NetworkSettings"]["Networks"]
    address = next(iter(settings.values()))["IPAddress"]
    await_(lambda: fetch(f"http://{address}/") == f"hello from {name}\n", f"the server in {name}", timeout=60)
    return {network: found["IPAddress"] for network, found in settings.items()}


def reaches(bothy: Walled, name: str, host: str) -> bool:
    """Whether a workload gets an answer of a web server."""
    return bothy("exec", name, "wget", "-q", "-O", "-", f"http://{host}/").code == 0


def is_cut_off(bothy: Walled, name: str, host: str) -> bool:
    """Whether a workload gets no answer within two seconds, which is a thousand times what one takes here."""
    script = f"wget -q -O - http://{host}/ & pid=$!; (sleep 2; kill $pid) >/dev/null 2>&1 & wait $pid"
    return bothy("exec", name, "sh", "-c", script).code != 0


def test_made_shown_and_removed(engine: TestEngine, settled: TestEngine) -> None:
    flags = ["--subnet", "10.211.0.0/16", "--ip-range", "10.211.5.0/24", "--gateway", "10.211.0.9", "--aux-address", "a=10.211.5.1"]
    identity = engine("network", "create", *flags, "--label", "l=1", "-o", "com.docker.network.driver.mtu=1400", "t-one").ok().line
    found = engine.json("network", "inspect", "t-one")[0]
    assert found["Id"] == identity
    assert found["IPAM"]["Config"] == [
        {"Subnet": "10.211.0.0/16", "IPRange": "10.211.5.0/24", "Gateway": "10.211.0.9", "AuxiliaryAddresses": {"a": "10.211.5.1"}}
    ]
    assert (found["Labels"], found["Options"]) == ({"l": "1"}, {"com.docker.network.driver.mtu": "1400"})
    assert engine("network", "ls", "--filter", "label=l=1", "--format", "{{.Name}} {{.Subnet}}").ok().line == "t-one 10.211.0.0/16"
    again = engine("network", "create", "t-one")
    assert (again.code, "network with name t-one already exists" in again.err) == (1, True)
    overlap = engine("network", "create", "--subnet", "10.211.7.0/24", "t-two")
    assert "Pool overlaps with other one on this address space" in overlap.err
    assert engine("network", "rm", "bridge").code == 1
    assert engine("network", "rm", "t-one").ok().line == "t-one"
    assert "not found" in engine("network", "inspect", "t-one").err


def test_prune(engine: TestEngine, make: Make) -> None:
    make("t-kept", "--label", "keep=1")
    make("t-used")
    make("t-gone")
    engine("create", "--name", "t-user", "--network", "t-used", "busybox", "true").ok()
    assert engine("network", "prune", "-f", "--filter", "label!=keep").ok().out.split() == ["Removed", "networks:", "t-gone"]
    left = engine("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}").ok().out.split()
    assert left == ["t-kept", "t-used"]


def test_static_addresses_are_kept(bothy: Walled, make: Make) -> None:
    make("t-net", "--subnet", "10.212.0.0/24", "--subnet", "fd12:212::/64", "--ipv6")
    flags = ["--network", "t-net", "--ip", "10.212.0.77", "--ip6", "fd12:212::77", "--mac-address", "02:00:00:00:77:77"]
    bothy("run", "-d", "--name", "t-static", *flags, "busybox", "sleep", "600").ok()
    for again in (False, True):
        if again:
            bothy("restart", "-t", "0", "t-static").ok()
        shown = bothy.engine.inspect("t-static")["NetworkSettings"]["Networks"]["t-net"]
        assert (shown["IPAddress"], shown["GlobalIPv6Address"], shown["MacAddress"]) == (
            "10.212.0.77", "fd12:212::77", "02:00:00:00:77:77",
        )  # fmt: skip
        out = bothy("exec", "t-static", "sh", "-c", "ip addr show eth0; ip -6 route").ok().out
        assert "10.212.0.77/24" in out
        assert "fd12:212::77/64" in out
        assert "02:00:00:00:77:77" in out
        assert "default via fd12:212::1" in out
    taken = bothy("run", "--rm", "--network", "t-net", "--ip", "10.212.0.77", "busybox", "true")
    assert taken.code == 125
    assert "Address already in use" in taken.err
    outside = bothy("run", "--rm", "--network", "t-net", "--ip", "10.9.9.9", "busybox", "true")
    assert "no configured subnet contains IP address 10.9.9.9" in outside.err


def test_networks_are_apart(bothy: Walled, make: Make) -> None:
    make("t-one", "--ipv6")
    make("t-two", "--ipv6")
    make("t-inner", "--internal")
    one = serve(bothy, "t-a", "--network", "t-one")["t-one"]
    two = serve(bothy, "t-b", "--network", "t-two")["t-two"]
    inner = serve(bothy, "t-c", "--network", "t-inner")["t-inner"]
    for name, host in (("t-a", two), ("t-b", one), ("t-a", inner), ("t-c", one)):
        assert is_cut_off(bothy, name, host), (name, host)
    six = bothy.engine.inspect("t-b")["NetworkSettings"]["Networks"]["t-two"]["GlobalIPv6Address"]
    assert bothy("exec", "t-a", "ping", "-6", "-c1", "-W1", six).code != 0
    assert "default" not in bothy("exec", "t-c", "ip", "route").ok().out
    assert reaches(bothy, "t-a", "127.0.0.1")


def test_both_walls_on_one_network(bothy: Walled, make: Make) -> None:
    make("t-shared", "--ipv6")
    here = serve(bothy, "t-this", "--network", "t-shared")["t-shared"]
    other = ["--vm"] if bothy.wall == "container" else []
    bothy.engine("run", "-d", *other, "--name", "t-other", "--network", "t-shared", "busybox", "sleep", "600", timeout=180).ok()
    there = bothy.engine.inspect("t-other")["NetworkSettings"]["Networks"]["t-shared"]
    assert reaches(bothy, "t-other", here)
    assert bothy("exec", "t-this", "ping", "-c1", "-W5", there["IPAddress"]).code == 0
    assert bothy("exec", "t-this", "ping", "-6", "-c1", "-W5", there["GlobalIPv6Address"]).code == 0
    members = bothy.engine.json("network", "inspect", "t-shared")[0]["Containers"]
    assert sorted(member["Name"] for member in members.values()) == ["t-other", "t-this"]
    assert there["IPAddress"] + "/" in " ".join(member["IPv4Address"] for member in members.values())


def test_several_networks_from_the_start(bothy: Walled, make: Make) -> None:
    make("t-zulu")
    make("t-alpha")
    make("t-inner", "--internal")
    flags = ["--network", "t-zulu", "--network", "t-inner", "--network", "name=t-alpha,alias=x"]
    bothy("run", "-d", "--name", "t-many", *flags, "busybox", "sleep", "600").ok()
    shown = bothy.engine.inspect("t-many")["NetworkSettings"]["Networks"]
    out = bothy("exec", "t-many", "sh", "-c", "ip -o -4 addr; ip route").ok().out
    for found in shown.values():
        assert found["IPAddress"] in out
    assert out.count("default") == 1
    assert f"default via {shown['t-alpha']['Gateway']}" in out  # neither the internal one nor the one that was named first
    assert shown["t-inner"]["Gateway"] == ""
    assert shown["t-alpha"]["Aliases"] == ["x"]


def test_connected_and_disconnected_while_it_runs(bothy: Walled, make: Make) -> None:
    make("t-one")
    make("t-two")
    serve(bothy, "t-peer", "--network", "t-two")
    bothy("run", "-d", "--name", "t-moves", "--network", "t-one", "busybox", "sleep", "600").ok()
    peer = bothy.engine.inspect("t-peer")["NetworkSettings"]["Networks"]["t-two"]["IPAddress"]
    bothy.engine("network", "connect", "--alias", "mover", "t-two", "t-moves").ok()
    assert reaches(bothy, "t-moves", peer)
    again = bothy.engine("network", "connect", "t-two", "t-moves")
    assert "endpoint with name t-moves already exists in network t-two" in again.err
    shown = bothy.engine.inspect("t-moves")["NetworkSettings"]["Networks"]
    assert shown["t-two"]["Aliases"] == ["mover"]
    bothy.engine("network", "disconnect", "t-one", "t-moves").ok()
    assert list(bothy.engine.inspect("t-moves")["NetworkSettings"]["Networks"]) == ["t-two"]
    out = bothy("exec", "t-moves", "sh", "-c", "ip -o -4 addr; ip route").ok().out
    assert shown["t-one"]["IPAddress"] not in out
    assert f"default via {shown['t-two']['Gateway']}" in out
    assert "is not connected to network t-one" in bothy.engine("network", "disconnect", "t-one", "t-moves").err
    assert "has active endpoints" in bothy.engine("network", "rm", "t-two").err
    bothy("restart", "-t", "0", "t-moves").ok()
    assert list(bothy.engine.inspect("t-moves")["NetworkSettings"]["Networks"]) == ["t-two"]
    assert reaches(bothy, "t-moves", peer)


def test_connected_before_it_runs(bothy: Walled, make: Make) -> None:
    make("t-one", "--subnet", "10.213.0.0/24")
    bothy("create", "--name", "t-later", "busybox", "sleep", "600").ok()
    bothy.engine("network", "connect", "--ip", "10.213.0.5", "t-one", "t-later").ok()
    bothy.engine("network", "disconnect", "bridge", "t-later").ok()
    bothy("start", "t-later").ok()
    shown = bothy.engine.inspect("t-later")["NetworkSettings"]["Networks"]
    assert {name: found["IPAddress"] for name, found in shown.items()} == {"t-one": "10.213.0.5"}
    assert "10.213.0.5" in bothy("exec", "t-later", "ip", "addr").ok().out


def test_a_network_outlives_the_daemon(bothy: Walled, make: Make) -> None:
    make("t-one", "--ipv6")
    make("t-two")
    port = free_port()
    serve(bothy, "t-stays", "--network", "t-one", "--network", "t-two", "-p", f"{port}:80")
    before = bothy.engine.inspect("t-stays")["NetworkSettings"]["Networks"]
    bothy.engine("system", "shutdown").ok()
    assert fetch(f"http://127.0.0.1:{port}/") == "hello from t-stays\n"
    assert bothy.engine.inspect("t-stays")["NetworkSettings"]["Networks"] == before
    bothy("run", "-d", "--name", "t-next", "--network", "t-one", "busybox", "sleep", "600").ok()
    new = bothy.engine.inspect("t-next")["NetworkSettings"]["Networks"]["t-one"]
    assert new["IPAddress"] != before["t-one"]["IPAddress"]
    bothy.engine("network", "disconnect", "t-one", "t-stays").ok()
    await_(lambda: fetch(f"http://127.0.0.1:{port}/") == "hello from t-stays\n", "the port at the other network", timeout=10)


def test_ports_come_and_go(bothy: Walled) -> None:
    serve(bothy, "t-web")
    first, second = free_port(), free_port()
    added = bothy("port", "add", "t-web", f"127.0.0.1:{first}:80").ok()
    assert added.line == f"80/tcp -> 127.0.0.1:{first}"
    assert fetch(f"http://127.0.0.1:{first}/") == "hello from t-web\n"
    taken = bothy("port", "add", "t-web", f"127.0.0.1:{first}:81")
    assert taken.code == 1
    assert f"port {first}/tcp on 127.0.0.1 is already allocated by workload" in taken.err
    bothy("port", "add", "t-web", f"{second}:80", f"{second}:53/udp").ok()
    assert fetch(f"http://127.0.0.1:{second}/") == "hello from t-web\n"
    rows = bothy("port", "ls", "--format", "{{.Name}} {{.Address}} {{.Reach}}", "t-web").ok().out.splitlines()
    assert f"t-web 127.0.0.1:{first} this host only" in rows
    bothy("restart", "-t", "0", "t-web").ok()
    shown = bothy("port", "t-web").ok().out
    assert f"80/tcp -> 127.0.0.1:{first}" in shown
    assert f"53/udp -> 0.0.0.0:{second}" in shown
    assert bothy("port", "rm", "t-web", f"{second}:80").ok().line == f"80/tcp -> 0.0.0.0:{second}"
    assert fetch(f"http://127.0.0.1:{second}/") == ""
    assert bothy("port", "rm", "t-web", "80").ok().line == f"80/tcp -> 127.0.0.1:{first}"
    assert "is not published" in bothy("port", "rm", "t-web", "80").err
    bothy("stop", "-t", "0", "t-web").ok()
    bothy("port", "add", "t-web", f"{first}:80").ok()
    bothy("start", "t-web").ok()
    assert f"80/tcp -> 0.0.0.0:{first}" in bothy("port", "t-web").ok().out


def test_published_on_ipv6_too(bothy: Walled, make: Make) -> None:
    make("t-six", "--ipv6")
    port = free_port()
    serve(bothy, "t-dual", "--network", "t-six", "-p", f"{port}:80")
    shown = bothy("port", "t-dual").ok().out.splitlines()
    assert shown == [f"80/tcp -> 0.0.0.0:{port}", f"80/tcp -> [::]:{port}"]
    gateway = bothy.engine.inspect("t-dual")["NetworkSettings"]["Networks"]["t-six"]["IPv6Gateway"]
    assert fetch(f"http://[{gateway}]:{port}/") == "hello from t-dual\n"
    assert fetch(f"http://localhost:{port}/") == "hello from t-dual\n"


def test_another_containers_network(engine: TestEngine, settled: TestEngine) -> None:
    engine("run", "-d", "--name", "t-host", "-p", "127.0.0.1::81", "busybox", "sleep", "600").ok()
    script = "mkdir /www; echo shared > /www/index.html; exec httpd -f -p 81 -h /www"
    engine("run", "-d", "--name", "t-side", "--network", "container:t-host", "busybox", "sh", "-c", script).ok()
    port = engine("port", "t-host", "81").ok().line.rpartition(":")[2]
    await_(lambda: fetch(f"http://127.0.0.1:{port}/") == "shared\n", "the server beside", timeout=30)
    inside = [engine("exec", name, "sh", "-c", "ip -o -4 addr; hostname; cat /etc/hosts").ok().out for name in ("t-host", "t-side")]
    assert inside[0] == inside[1]
    assert engine("exec", "t-side", "ping", "-c1", "-W5", engine.inspect("t-host")["NetworkSettings"]["Gateway"]).code == 0
    record = engine.inspect("t-side")
    assert record["HostConfig"]["NetworkMode"] == f"container:{engine.inspect('t-host')['Id']}"
    assert record["NetworkSettings"]["Networks"] == {}
    for flags, words in (
        (["-p", "80"], "conflicting options: port publishing and the container type network mode"),
        (["--dns", "192.0.2.1"], "conflicting options: dns and the network mode"),
        (["--hostname", "x"], "conflicting options: hostname and the network mode"),
        (["--add-host", "a:192.0.2.1"], "conflicting options: custom host-to-IP mapping and the network mode"),
        (["--vm"], "a machine can not share a container's network"),
    ):
        refused = engine("run", "--rm", "--network", "container:t-host", *flags, "busybox", "true")
        assert refused.code == 125
        assert words in refused.err
    assert "cannot be connected to any other network" in engine("network", "connect", "bridge", "t-side").err
    engine("rm", "-f", "t-host").ok()
    engine("stop", "-t", "0", "t-side").ok()
    assert "No such container" in engine("start", "t-side").err


def test_links(bothy: Walled) -> None:
    engine = bothy.engine
    engine("run", "-d", "--name", "t-db", "busybox", "sleep", "600").ok()
    bothy("run", "-d", "--name", "t-app", "--link", "t-db:database", "busybox", "sleep", "600").ok()

    def told() -> list[list[str]]:
        lines = engine("exec", "t-app", "cat", "/etc/hosts").ok().out.splitlines()
        return [line.split()[:2] for line in lines if "database" in line]

    address = engine.inspect("t-db")["NetworkSettings"]["IPAddress"]
    assert told() == [[address, "database"]]
    assert engine.inspect("t-app")["HostConfig"]["Links"] == ["/t-db:/t-app/database"]
    engine("restart", "-t", "0", "t-db").ok()
    again = engine.inspect("t-db")["NetworkSettings"]["IPAddress"]
    assert again != address
    await_(lambda: told() == [[again, "database"]], "the new address")
    assert "could not get container for t-none" in engine("run", "--rm", "--link", "t-none", "busybox", "true").err
    engine("stop", "-t", "0", "t-db", "t-app").ok()
    assert "Cannot link to a non running container: /t-db" in engine("start", "-a", "t-app").err


def test_what_is_told(engine: TestEngine, make: Make) -> None:
    since = subprocess.run(["date", "+%s.%N"], check=True, capture_output=True, text=True).stdout.strip()
    make("t-told")
    engine("run", "-d", "--name", "t-there", "--network", "t-told", "busybox", "sleep", "600").ok()
    engine("network", "connect", "bridge", "t-there").ok()
    engine("network", "disconnect", "t-told", "t-there").ok()
    engine("rm", "-f", "t-there").ok()
    engine("network", "rm", "t-told").ok()
    until = subprocess.run(["date", "+%s.%N"], check=True, capture_output=True, text=True).stdout.strip()
    events = engine("events", "--since", since, "--until", until, "--filter", "type=network", "--format", "{{json .}}").ok().out
    told = [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in map(json.loads, events.splitlines())]
    assert told == [
        ("create", "t-told"), ("connect", "t-told"), ("connect", "bridge"), ("disconnect", "t-told"), ("disconnect", "bridge"),
        ("destroy", "t-told"),
    ]  # fmt: skip


def test_the_doctor(engine: TestEngine, settled: TestEngine) -> None:
    port = free_port()
    engine("run", "-d", "--name", "t-ill", "-p", f"127.0.0.1:{port}:80", "busybox", "sleep", "600").ok()
    found = json.loads(engine("network", "doctor", "--format", "json").out)
    mine = [entry for entry in found["Ports"] if entry["Name"] == "t-ill"]
    assert [(entry["HostPort"], entry["Port"], entry["Reach"]) for entry in mine] == [(port, 80, "host")]
    text = engine("network", "doctor").out
    assert "this host only" in text
    assert f"127.0.0.1:{port}" in text


def test_the_owner_narrows_where_ports_are_published(tmp_path_factory: pytest.TempPathFactory) -> None:
    narrow = TestEngine(*(tmp_path_factory.mktemp(name) for name in ("root", "run")), {"BOTHY_DEFAULT_BIND": "127.0.0.1"})
    try:
        narrow("image", "bootstrap", "busybox", timeout=120).ok()
        narrow("run", "-d", "--name", "t-narrow", "-p", "80", "-p", "0.0.0.0::81", "busybox", "sleep", "600").ok()
        shown = narrow("port", "t-narrow").ok().out.splitlines()
        assert [line.rpartition(":")[0] for line in shown] == ["80/tcp -> 127.0.0.1", "81/tcp -> 0.0.0.0"]
    finally:
        narrow.shutdown()
