"""The table as data: what is in the script, and when the kernel's is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bothy.networks import firewall
from bothy.networks.model import Network, Published

ONE = Network("1" * 64, "bridge", "bridge", "", bridge="bothy0", subnet="172.30.0.0/16", gateway="172.30.0.1")
TWO = Network("2" * 64, "inner", "bridge", "", bridge="by-2", subnet="172.31.0.0/16", gateway="172.31.0.1", internal=True)
HOST = Network("3" * 64, "host", "host", "")
WEB = firewall.element(Published(80, "tcp", "0.0.0.0", 8080), "172.30.0.2")
DNS = firewall.element(Published(53, "udp", "127.0.0.1", 5353), "172.30.0.3")


def ip_table(scope: str, networks: list[Network], elements: list[firewall.Element] | None = None) -> firewall.Table:
    return firewall.tables(scope, networks, elements or [])[0]


def listing(table: firewall.Table) -> list[dict[str, Any]]:
    """What nft would list of a table."""
    found: list[dict[str, Any]] = [{"metainfo": {}}, {"table": {"name": table.name}}]
    for name in (firewall.MAP_ANY, firewall.MAP_ONE, firewall.MAP_NAMES):
        elements = [
            [_key([int(k) if k.isdigit() else k.strip('"') for k in e.key]), {"concat": [e.value[0], int(e.value[1])]}]
            for e in table.elements
            if e.map == name
        ]
        found.append({"map": {"name": name, "elem": elements} if elements else {"name": name}})
    for chain in table.chains:
        found.append({"chain": {"name": chain.name}})
        found += [{"rule": {"chain": chain.name}} for _ in chain.rules]
    return found


def _key(parts: list[Any]) -> Any:
    return {"concat": parts} if len(parts) > 1 else parts[0]


def test_a_script_replaces_the_table_in_one_transaction() -> None:
    script = ip_table("bothy-1", [ONE, HOST], [WEB, DNS]).script()
    assert script.startswith("add table ip bothy-1\ndelete table ip bothy-1\ntable ip bothy-1 {\n")
    assert "elements = { tcp . 8080 : 172.30.0.2 . 80 }" in script
    assert "elements = { 127.0.0.1 . udp . 5353 : 172.30.0.3 . 53 }" in script
    assert '"bothy0"' in script


def test_without_bridges_there_is_nothing_to_rule() -> None:
    assert firewall.tables("bothy", [HOST]) == []


def test_an_internal_network_is_not_masqueraded() -> None:
    rules = {chain.name: chain.rules for chain in ip_table("bothy", [ONE, TWO]).chains}
    assert not any("172.31.0.0/16" in rule and "oifname !=" in rule for rule in rules["postrouting"])
    assert any("172.30.0.0/16" in rule and "oifname !=" in rule for rule in rules["postrouting"])
    assert 'iifname "by-2" drop' in rules["forward"]
    assert rules["forward"][-1] == 'oifname { "bothy0", "by-2" } drop'


def test_differences_are_seen() -> None:
    table = ip_table("bothy", [ONE], [WEB, DNS])
    same = listing(table)
    assert table.matches(same)
    assert not table.matches([])
    assert not table.matches([entry for entry in same if entry != {"chain": {"name": "forward"}}])
    assert not table.matches([entry for entry in same if entry != {"rule": {"chain": "publish"}}])
    assert not table.matches([*same, {"rule": {"chain": "forward"}}])
    assert not ip_table("bothy", [ONE], [WEB]).matches(same)
    assert not ip_table("bothy", [ONE], [WEB, DNS, firewall.element(Published(1, "tcp", "0.0.0.0", 1), "172.30.0.9")]).matches(same)


def test_queries_go_to_the_dns_server_before_published_ports() -> None:
    names = [firewall.name_element("bothy0", "172.30.0.1", 10053), firewall.name_element("by-2", "fd00:1::1", 4000)]
    table = ip_table("bothy", [ONE, TWO], [WEB, *names])
    assert 'elements = { "bothy0" : 172.30.0.1 . 10053 }' in table.script()
    rules = next(chain.rules for chain in table.chains if chain.name == "prerouting")
    found = [n for n, rule in enumerate(rules) if "@names" in rule]
    assert len(found) == 1
    assert rules[found[0]].startswith("ip daddr { 172.30.0.1, 172.31.0.1 } meta l4proto { tcp, udp } th dport 53 ")
    assert found[0] < rules.index("fib daddr type local jump publish")
    assert table.matches(listing(table))
    assert not ip_table("bothy", [ONE, TWO], [WEB]).matches(listing(table))


def test_elements_come_and_go_by_scripts() -> None:
    assert firewall.add_elements("bothy", [WEB]) == "add element ip bothy published { tcp . 8080 : 172.30.0.2 . 80 }\n"
    assert firewall.delete_elements("bothy", [DNS]) == "delete element ip bothy published_on { 127.0.0.1 . udp . 5353 }\n"


def test_a_family_has_a_table_where_it_is_needed() -> None:
    six = replace(TWO, subnet6="fd00:1::/64", gateway6="fd00:1::1", internal=False)
    web6 = firewall.element(Published(80, "tcp", "::", 8080), "fd00:1::2")
    one6 = firewall.element(Published(80, "tcp", "2001:db8::1", 8080), "fd00:1::2")
    assert [t.family for t in firewall.tables("b", [ONE, TWO])] == ["ip"]
    four, table = firewall.tables("b", [ONE, six], [WEB, web6, one6])
    assert (four.elements, table.elements) == ([WEB], [web6, one6])
    assert "elements = { 2001:db8::1 . tcp . 8080 : fd00:1::2 . 80 }" in table.script()
    rules = {chain.name: chain.rules for chain in table.chains}
    assert 'ip6 saddr fd00:1::/64 oifname != { "bothy0", "by-2" } masquerade' in rules["postrouting"]
    assert not any("ip saddr" in rule or "172.3" in rule for chain in rules.values() for rule in chain)
    assert rules["forward"] == {chain.name: chain.rules for chain in four.chains}["forward"]
    assert table.matches(listing(table))


def test_workloads_that_must_not_talk_to_each_other() -> None:
    apart = replace(ONE, options={"com.docker.network.bridge.enable_icc": "false"})
    forward = {chain.name: chain.rules for chain in ip_table("b", [apart, TWO]).chains}["forward"]
    both = 'iifname "bothy0" oifname "bothy0"'
    assert forward.index(f"{both} ct status dnat accept") < forward.index(f"{both} drop")
    assert 'iifname "by-2" oifname "by-2" accept' in forward


def test_without_masquerading() -> None:
    plain = replace(ONE, options={"com.docker.network.bridge.enable_ip_masquerade": "false"})
    assert not any("oifname !=" in rule for rule in ip_table("b", [plain]).chains[-1].rules)
