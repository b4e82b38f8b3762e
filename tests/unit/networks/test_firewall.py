"""The table as data: what is in the script, and when the kernel's is the same."""

from __future__ import annotations

from typing import Any

from bothy.networks import firewall
from bothy.networks.model import Network, Published

ONE = Network("1" * 64, "bridge", "bridge", "", bridge="bothy0", subnet="172.30.0.0/16", gateway="172.30.0.1")
TWO = Network("2" * 64, "inner", "bridge", "", bridge="by-2", subnet="172.31.0.0/16", gateway="172.31.0.1", internal=True)
HOST = Network("3" * 64, "host", "host", "")
WEB = firewall.element(Published(80, "tcp", "0.0.0.0", 8080), "172.30.0.2")
DNS = firewall.element(Published(53, "udp", "127.0.0.1", 5353), "172.30.0.3")


def listing(table: firewall.Table) -> list[dict[str, Any]]:
    """What nft would list of a table."""
    found: list[dict[str, Any]] = [{"metainfo": {}}, {"table": {"name": table.name}}]
    for name in (firewall.MAP_ANY, firewall.MAP_ONE):
        elements = [
            [{"concat": [int(k) if k.isdigit() else k for k in e.key]}, {"concat": [e.value[0], int(e.value[1])]}]
            for e in table.elements
            if e.map == name
        ]
        found.append({"map": {"name": name, "elem": elements} if elements else {"name": name}})
    for chain in table.chains:
        found.append({"chain": {"name": chain.name}})
        found += [{"rule": {"chain": chain.name}} for _ in chain.rules]
    return found


def test_a_script_replaces_the_table_in_one_transaction() -> None:
    script = firewall.table("bothy-1", [ONE, HOST], [WEB, DNS]).script()
    assert script.startswith("add table ip bothy-1\ndelete table ip bothy-1\ntable ip bothy-1 {\n")
    assert "elements = { tcp . 8080 : 172.30.0.2 . 80 }" in script
    assert "elements = { 127.0.0.1 . udp . 5353 : 172.30.0.3 . 53 }" in script
    assert '"bothy0"' in script


def test_without_bridges_there_is_nothing_to_rule() -> None:
    assert firewall.table("bothy", [HOST]).chains == []


def test_an_internal_network_is_not_masqueraded() -> None:
    rules = {chain.name: chain.rules for chain in firewall.table("bothy", [ONE, TWO]).chains}
    assert not any("172.31.0.0/16" in rule and "oifname !=" in rule for rule in rules["postrouting"])
    assert any("172.30.0.0/16" in rule and "oifname !=" in rule for rule in rules["postrouting"])
    assert 'iifname "by-2" drop' in rules["forward"]
    assert rules["forward"][-1] == 'oifname { "bothy0", "by-2" } drop'


def test_differences_are_seen() -> None:
    table = firewall.table("bothy", [ONE], [WEB, DNS])
    same = listing(table)
    assert table.matches(same)
    assert not table.matches([])
    assert not table.matches([entry for entry in same if entry != {"chain": {"name": "forward"}}])
    assert not table.matches([entry for entry in same if entry != {"rule": {"chain": "publish"}}])
    assert not table.matches([*same, {"rule": {"chain": "forward"}}])
    assert not firewall.table("bothy", [ONE], [WEB]).matches(same)
    assert not firewall.table(
        "bothy", [ONE], [WEB, DNS, firewall.element(Published(1, "tcp", "0.0.0.0", 1), "172.30.0.9")]
    ).matches(same)


def test_elements_come_and_go_by_scripts() -> None:
    assert firewall.add_elements("bothy", [WEB]) == "add element ip bothy published { tcp . 8080 : 172.30.0.2 . 80 }\n"
    assert firewall.delete_elements("bothy", [DNS]) == "delete element ip bothy published_on { 127.0.0.1 . udp . 5353 }\n"
