"""What is made, what stays, what is repaired, what is removed: the kernel's side of an engine's networks."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path

import pytest

from bothy.errors import Broken, Conflict, Forbidden, Invalid, NotFound
from bothy.linux import links
from bothy.networks.bridge import contested
from bothy.networks.model import IpamPool, NetworkRequest, PortRequest
from bothy.networks.service import Networks
from bothy.paths import DEFAULT_RUN, Paths

from .conftest import World

A, B = "a" * 64, "b" * 64


def nft(*words: str) -> str:
    return subprocess.run(["nft", *words], check=True, capture_output=True, text=True).stdout


def test_the_default_bridge_is_made_when_it_is_needed(world: World, networks: Networks, paths: Paths) -> None:
    assert set(links.links()) == {"lo"}
    assert nft("list", "tables") == ""
    lease = networks.lease(A)
    assert lease.bridge == f"by{paths.key}0"
    assert (lease.address, lease.gateway, lease.mac) == ("172.30.0.2/16", "172.30.0.1", "02:42:ac:1e:00:02")
    assert links.addresses()[lease.bridge] == ["172.30.0.1/16"]
    assert links.links()[lease.bridge].mac == "02:42:ac:1e:00:01"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    assert nft("list", "tables").split() == ["table", "ip", paths.scope]
    assert networks.lease(A) == lease
    assert networks.lease(B).address == "172.30.0.3/16"


def test_the_default_engine_has_the_plain_names(world: World, tmp_path: Path) -> None:
    service = Networks(Paths(tmp_path, Path(DEFAULT_RUN)))
    assert service.ensure_default().bridge == "bothy0"
    assert nft("list", "tables").split() == ["table", "ip", "bothy"]
    service.close()


def test_the_uplinks_mtu_is_the_workloads(world: World, networks: Networks) -> None:
    world.add_neighbour()
    links.set_mtu("uplink", 1400)
    lease = networks.lease(A)
    assert (lease.mtu, links.links()[lease.bridge].mtu, networks.attachments(lease.workload)[0].interface.mtu) == (1400, 1400, 1400)


def test_a_subnet_is_free_and_then_stays(world: World, networks: Networks, paths: Paths) -> None:
    links.create_bridge("other")
    links.add_address("other", "172.30.7.1/24")
    assert networks.ensure_default().subnet == "172.31.0.0/16"
    links.delete_links(["other", networks.get("bridge").bridge])
    again = Networks(paths)
    assert again.ensure_default().subnet == "172.31.0.0/16"
    assert again.get("bridge").id == networks.get("bridge").id
    again.close()


def test_of_two_engines_that_choose_at_once_the_later_yields(world: World, networks: Networks, tmp_path: Path) -> None:
    mine = networks.ensure_default()
    root = tmp_path / "root2"
    root.mkdir()
    entry = {"id": "9" * 64, "name": "bridge", "driver": "bridge", "created": "", "subnet": mine.subnet, "gateway": mine.gateway}
    (root / "networks.json").write_text(json.dumps({"networks": [entry]}))
    other = Networks(Paths(root, tmp_path / "run2"))
    theirs = other.ensure_default()
    assert (mine.subnet, theirs.subnet) == ("172.30.0.0/16", "172.31.0.0/16")
    assert not contested(theirs)
    assert not contested(mine)
    other.close()


def test_a_new_daemon_finds_everything_as_it_was(world: World, networks: Networks, paths: Paths) -> None:
    inside = world.workload(networks, "a")
    server = inside.listen(80)
    ports = networks.publish(A, [PortRequest(80, host_port="8080")])
    before = nft("list", "table", "ip", paths.scope)
    networks.close()
    assert world.ask(world.host, "127.0.0.1", 8080, server) == "172.30.0.1"  # nobody is there, traffic goes on
    again = Networks(paths)
    assert again.adopt(inside.lease, ports) == inside.lease
    again.reconcile()
    assert nft("list", "table", "ip", paths.scope) == before
    assert world.ask(world.host, "127.0.0.1", 8080, server) == "172.30.0.1"
    assert again.lease(B).address == "172.30.0.3/16"
    with pytest.raises(Conflict, match="workload aaaaaaaaaaaa"):
        again.publish(B, [PortRequest(80, host_port="8080")])
    again.adopt(inside.lease, ports)  # once more changes nothing
    assert again.published(A) == ports
    again.release(A)
    assert "8080" not in nft("list", "table", "ip", paths.scope)
    again.close()


@pytest.mark.parametrize(
    "damage", ["flush ruleset", "delete table ip SCOPE", "flush chain ip SCOPE forward", "flush map ip SCOPE published"]
)
def test_a_damaged_table_is_built_anew(world: World, networks: Networks, paths: Paths, damage: str) -> None:
    world.workload(networks, "a")
    networks.publish(A, [PortRequest(80, host_port="8080"), PortRequest(80, host_ip="127.0.0.1", host_port="9090")])
    before = nft("list", "table", "ip", paths.scope)
    fd = networks.watch()
    networks.reconcile()
    networks.lease(B)
    networks.publish(B, [PortRequest(80, host_port="8081")])
    networks.unpublish(B)
    assert not networks.disturbed()
    nft(damage.replace("SCOPE", paths.scope))
    assert select.select([fd], [], [], 1)[0] == [fd]
    assert networks.disturbed()
    assert not networks.disturbed()
    networks.mend()
    assert nft("list", "table", "ip", paths.scope) == before
    assert not networks.disturbed()
    nft(damage.replace("SCOPE", paths.scope))
    networks.reconcile()
    assert nft("list", "table", "ip", paths.scope) == before
    nft(damage.replace("SCOPE", paths.scope))
    networks.unpublish(A)  # works on a damaged table too
    assert "8080" not in nft("list", "table", "ip", paths.scope)
    assert "postrouting" in nft("list", "table", "ip", paths.scope)


def test_a_bridge_that_was_deleted_is_made_again(world: World, networks: Networks) -> None:
    lease = networks.lease(A)
    links.delete_link(lease.bridge)
    assert networks.lease(B).bridge == lease.bridge
    assert links.addresses()[lease.bridge] == ["172.30.0.1/16"]


def test_links_of_workloads_that_are_gone_are_removed(world: World, networks: Networks, paths: Paths) -> None:
    kept, gone = world.workload(networks, "a"), world.workload(networks, "b")
    tap = links.open_tap("bycccccccccccc", kept.lease.bridge)
    again = Networks(paths)
    again.adopt(kept.lease)
    again.reconcile()
    os.close(tap)
    assert kept.lease.link in links.links()
    assert {gone.lease.link, "bycccccccccccc"} & set(links.links()) == set()
    again.close()


def test_teardown_leaves_what_is_not_ours(world: World, networks: Networks) -> None:
    nft("add table inet mine; add chain inet mine c { type filter hook input priority 0; }; add rule inet mine c counter accept")
    links.create_bridge("mine")
    mine = nft("list", "ruleset")
    networks.create(NetworkRequest("apart"))
    inside = world.workload(networks, "a")
    networks.publish(A, [PortRequest(80, host_port="8080")])
    assert nft("list", "ruleset") != mine
    networks.teardown()
    assert nft("list", "ruleset") == mine
    assert set(links.links()) == {"lo", "mine"}
    networks.teardown()  # once more changes nothing
    assert networks.lease(A).address == inside.lease.address


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("docker", [True, False], ids=["with DOCKER-USER", "without"])
def test_a_forward_chain_that_drops_is_opened_for_us(world: World, networks: Networks, program: str, docker: bool) -> None:
    def iptables(*words: str) -> str:
        return subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout

    world.add_neighbour()
    iptables("-P", "FORWARD", "DROP")
    if docker:
        iptables("-N", "DOCKER-USER")
        iptables("-A", "DOCKER-USER", "-j", "RETURN")
        iptables("-A", "FORWARD", "-j", "DOCKER-USER")
    before = iptables("-S")
    inside = world.workload(networks, "a")
    with world.inside(world.lan):
        server = world.server("198.51.100.2", 7000)
    assert world.ask(inside.netns, "198.51.100.2", 7000, server) == "198.51.100.1"
    networks.publish(A, [PortRequest(80, host_port="8080")])
    assert world.ask(world.lan, "198.51.100.1", 8080, inside.listen(80)) == "198.51.100.2"
    opened = iptables("-S")
    networks.reconcile()
    assert iptables("-S") == opened
    networks.teardown()
    assert iptables("-S") == before


def test_two_engines_side_by_side(world: World, networks: Networks, tmp_path: Path) -> None:
    other = Networks(Paths(tmp_path / "root2", tmp_path / "run2"))
    here, there = world.workload(networks, "a"), world.workload(other, "b")
    server = there.listen(80)
    assert here.lease.bridge != there.lease.bridge
    assert world.can_not(here.netns, there.lease.ip, 80, server)
    other.publish(B, [PortRequest(80, host_port="8080")])
    assert world.ask(here.netns, there.lease.gateway, 8080, server)
    with pytest.raises(Conflict, match="already allocated"):
        networks.publish(A, [PortRequest(80, host_port="8080")])
    networks.teardown()
    assert world.ask(world.host, "127.0.0.1", 8080, server) == there.lease.gateway
    other.teardown()
    assert set(links.links()) == {"lo"}
    other.close()


def test_a_failed_publish_leaves_nothing(world: World, networks: Networks, paths: Paths) -> None:
    networks.lease(A)
    world.server("0.0.0.0", 8081)
    before = nft("list", "table", "ip", paths.scope)
    with pytest.raises(Conflict, match=r"port 8081/tcp on 0\.0\.0\.0 is already allocated"):
        networks.publish(A, [PortRequest(80, host_port="8080"), PortRequest(81, host_port="8081")])
    assert nft("list", "table", "ip", paths.scope) == before
    assert networks.published(A) == []
    world.server("0.0.0.0", 8080)


def test_ports_come_and_go_beside_others(world: World, networks: Networks, paths: Paths) -> None:
    networks.lease(A)
    first = networks.publish(A, [PortRequest(80, host_port="8080")])
    second = networks.publish(A, [PortRequest(80, host_port="8081")])
    assert networks.published(A) == [*first, *second]
    assert networks.unpublish(A, first) == first
    assert networks.published(A) == second
    assert "8080" not in nft("-n", "list", "table", "ip", paths.scope)
    networks.release(A)
    assert "8081" not in nft("-n", "list", "table", "ip", paths.scope)


def test_networks_of_ones_own(world: World, networks: Networks, paths: Paths) -> None:
    made = networks.create(NetworkRequest("apart", [IpamPool("10.89.0.0/24", "10.89.0.254")], labels={"a": "b"}))
    assert networks.lease(A, "apart").address == "10.89.0.1/24"
    assert networks.lease(A, "bridge").link != networks.lease(A, "apart").link
    assert Networks(paths).get(made.id[:12]) == made
    for error, call in (
        (Conflict, lambda: networks.create(NetworkRequest("apart"))),
        (Forbidden, lambda: networks.create(NetworkRequest("b", [IpamPool("10.89.0.0/16")]))),
        (Invalid, lambda: networks.create(NetworkRequest("b", [IpamPool("10.90.0.0/24", "10.91.0.1")]))),
        (Forbidden, lambda: networks.remove("apart")),
        (Forbidden, lambda: networks.remove("bridge")),
        (NotFound, lambda: networks.get("nowhere")),
        (Invalid, lambda: networks.lease(A, "host")),
    ):
        with pytest.raises(error):
            call()
    networks.release(A)
    networks.remove("apart")
    assert made.bridge not in links.links()
    assert [n.name for n in Networks(paths).list()] == ["bridge", "host", "none"]


def test_a_damaged_file_is_told(world: World, paths: Paths) -> None:
    paths.root.mkdir()
    (paths.root / "networks.json").write_text("{")
    with pytest.raises(Broken, match=r"networks\.json is damaged"):
        Networks(paths)
