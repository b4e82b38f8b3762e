"""The one nftables table of an engine, as data: what it should hold, as a script for nft, and whether the kernel's is the same.

    from a neighbour of the host         from the host itself          from a workload
            │                                  │                             │
        raw: what comes off a bridge of ours may not name the host's loopback (CVE-2020-8558)
            │                                  │                             │
        prerouting ──┐                    output ──┐                    prerouting
            │     publish: (address,) protocol, port → workload, port: two maps, one element a published port
            │                                  │                             │
        forward: out of a network: yes · within it: yes · into it: only what was published, or belongs to what came out of it
            │                                  │                             │
        postrouting: masquerade what leaves for the world · what came from 127.0.0.0/8 · what goes back into its own network

Verdicts `accept` end this table's chain only; other tables of the host still have their say, and are never touched.
Out of scope: IPv6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bothy.networks.model import Network, Published

ANY = "0.0.0.0"
MAP_ANY, MAP_ONE = "published", "published_on"
_PROTOCOLS = "{ tcp, udp, sctp }"


@dataclass(frozen=True)
class Element:
    """One element of one of the two maps."""

    map: str
    key: tuple[str, ...]
    value: tuple[str, str]

    def __str__(self) -> str:
        return f"{' . '.join(self.key)} : {' . '.join(self.value)}"


@dataclass(frozen=True)
class Chain:
    name: str
    hook: str
    rules: list[str]

    def __str__(self) -> str:
        lines = [self.hook, *self.rules] if self.hook else self.rules
        return f"\tchain {self.name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


@dataclass(frozen=True)
class Table:
    name: str
    chains: list[Chain] = field(default_factory=list)
    elements: list[Element] = field(default_factory=list)

    def script(self) -> str:
        """A transaction that puts this table in the place of what was there under its name."""
        maps = "".join(self._map(name, kind) for name, kind in _MAPS.items())
        body = maps + "".join(map(str, self.chains))
        return f"add table ip {self.name}\ndelete table ip {self.name}\ntable ip {self.name} {{\n{body}}}\n"

    def _map(self, name: str, kind: str) -> str:
        elements = ", ".join(str(element) for element in self.elements if element.map == name)
        inner = f"\t\telements = {{ {elements} }}\n" if elements else ""
        return f"\tmap {name} {{\n\t\ttype {kind}\n{inner}\t}}\n"

    def matches(self, listing: Iterable[Mapping[str, Any]]) -> bool:
        """Whether what nft lists (`list table`, JSON) has this table's chains, as many rules in each, and its elements."""
        rules: Counter[str] = Counter()
        chains: set[str] = set()
        elements: set[tuple[str, str, str]] = set()
        for entry in listing:
            if "chain" in entry:
                chains.add(entry["chain"]["name"])
            elif "rule" in entry:
                rules[entry["rule"]["chain"]] += 1
            elif "map" in entry:
                name = entry["map"]["name"]
                elements |= {(name, _joined(key), _joined(value)) for key, value in entry["map"].get("elem", [])}
        wanted = {(e.map, " . ".join(e.key), " . ".join(e.value)) for e in self.elements}
        return (
            chains == {c.name for c in self.chains}
            and elements == wanted
            and rules == Counter({c.name: len(c.rules) for c in self.chains})
        )


_MAPS = {
    MAP_ANY: "inet_proto . inet_service : ipv4_addr . inet_service",
    MAP_ONE: "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
}


def _joined(data: Any) -> str:
    parts = data["concat"] if isinstance(data, dict) and "concat" in data else [data]
    return " . ".join(str(part) for part in parts)


def table(scope: str, networks: Iterable[Network], elements: Iterable[Element] = ()) -> Table:
    """The table for these networks (those of other drivers are passed over) and published ports."""
    bridged = sorted((n for n in networks if n.bridge), key=lambda n: n.bridge)
    if not bridged:
        return Table(scope)
    ours = "{ " + ", ".join(f'"{n.bridge}"' for n in bridged) + " }"
    to_maps = [
        f"meta l4proto {_PROTOCOLS} dnat ip to ip daddr . meta l4proto . th dport map @{MAP_ONE}",
        f"meta l4proto {_PROTOCOLS} dnat ip to meta l4proto . th dport map @{MAP_ANY}",
    ]
    chains = [
        Chain("raw", "type filter hook prerouting priority raw; policy accept;", _raw(ours)),
        Chain("publish", "", to_maps),
        Chain(
            "prerouting",
            "type nat hook prerouting priority dstnat; policy accept;",
            # a neighbour must not reach what is published on the loopback by naming 127.0.0.1 in its packets
            ["ip daddr 127.0.0.0/8 return", "fib daddr type local jump publish"],
        ),
        Chain("output", "type nat hook output priority -100; policy accept;", ["fib daddr type local jump publish"]),
        Chain("forward", "type filter hook forward priority filter; policy accept;", _forward(bridged, ours)),
        Chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", _postrouting(bridged, ours)),
    ]
    return Table(scope, chains, list(elements))


def _raw(ours: str) -> list[str]:
    # route_localnet is on for our bridges: without these a workload could talk to 127.0.0.1 of the host
    return [f"iifname {ours} ip daddr 127.0.0.0/8 drop", f"iifname {ours} ip saddr 127.0.0.0/8 drop"]


def _forward(networks: list[Network], ours: str) -> list[str]:
    inside = [f'iifname "{n.bridge}" oifname "{n.bridge}" accept' for n in networks]
    closed = [f'{side} "{n.bridge}" drop' for n in networks if n.internal for side in ("iifname", "oifname")]
    return [
        f"iifname != {ours} oifname != {ours} accept",
        "ct state established,related accept",
        *inside,
        *closed,
        f"oifname {ours} ct status dnat accept",
        f"oifname {ours} drop",
    ]


def _postrouting(networks: list[Network], ours: str) -> list[str]:
    rules = [f"oifname {ours} ip saddr 127.0.0.0/8 masquerade"]
    for network in networks:
        if not network.internal:
            rules.append(f"ip saddr {network.subnet} oifname != {ours} masquerade")
        # a workload that reaches one of its own network by the host's address: the answer must come back by us
        rules.append(f'ip saddr {network.subnet} oifname "{network.bridge}" ct status dnat masquerade')
    return rules


def element(port: Published, address: str) -> Element:
    """The map element that publishes a port of the workload at `address`."""
    key: tuple[str, ...] = (port.protocol, str(port.host_port))
    value = (address, str(port.container_port))
    return Element(MAP_ANY, key, value) if port.host_ip == ANY else Element(MAP_ONE, (port.host_ip, *key), value)


def add_elements(scope: str, elements: Iterable[Element]) -> str:
    """A script that adds elements to the maps of the table."""
    return "".join(f"add element ip {scope} {e.map} {{ {e} }}\n" for e in elements)


def delete_elements(scope: str, elements: Iterable[Element]) -> str:
    """A script that removes elements; it fails if one of them is not there."""
    return "".join(f"delete element ip {scope} {e.map} {{ {' . '.join(e.key)} }}\n" for e in elements)


def delete_table(scope: str) -> str:
    """A script that removes the table, also if it is not there."""
    return f"add table ip {scope}\ndelete table ip {scope}\n"
