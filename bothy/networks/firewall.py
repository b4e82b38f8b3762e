"""The nftables tables of an engine, one a family, as data: what they should hold, as a script, whether the kernel's are the same.

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

`ip` is there with the first network, `ip6` where one has IPv6. What stays on one bridge they see only where br_netfilter is loaded:
where it is not, workloads that must not talk to each other have isolated ports (bridge(8)). Verdicts `accept` end their table's
chain only; other tables of the host still have their say, and are never touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bothy.networks.model import Network, Published

ANY, ANY6 = "0.0.0.0", "::"
MAP_ANY, MAP_ONE, MAP_NAMES = "published", "published_on", "names"
IP, IP6 = "ip", "ip6"
FAMILIES = (IP, IP6)
_PROTOCOLS = "{ tcp, udp, sctp }"
_QUERIES = "meta l4proto { tcp, udp } th dport 53"
_LOOPBACK = {IP: "127.0.0.0/8", IP6: "::1"}


@dataclass(frozen=True)
class Element:
    """One element of one of the maps of a family's table."""

    family: str
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
    family: str
    name: str
    chains: list[Chain] = field(default_factory=list)
    elements: list[Element] = field(default_factory=list)

    def script(self) -> str:
        """A transaction that puts this table in the place of what was there under its name."""
        maps = "".join(self._map(name, kind) for name, kind in _maps(self.family).items())
        body = maps + "".join(map(str, self.chains))
        return delete_table(self.family, self.name) + f"table {self.family} {self.name} {{\n{body}}}\n"

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
        wanted = {(e.map, " . ".join(e.key).replace('"', ""), " . ".join(e.value)) for e in self.elements}
        return (
            chains == {c.name for c in self.chains}
            and elements == wanted
            and rules == Counter({c.name: len(c.rules) for c in self.chains})
        )


def _maps(family: str) -> dict[str, str]:
    kind = "ipv4_addr" if family == IP else "ipv6_addr"
    any_, to = "inet_proto . inet_service", f"{kind} . inet_service"
    return {MAP_ANY: f"{any_} : {to}", MAP_ONE: f"{kind} . {any_} : {to}", MAP_NAMES: f"ifname : {to}"}


def _joined(data: Any) -> str:
    parts = data["concat"] if isinstance(data, dict) and "concat" in data else [data]
    return " . ".join(str(part) for part in parts)


def tables(scope: str, networks: Iterable[Network], elements: Iterable[Element] = ()) -> list[Table]:
    """The tables for these networks (those of other drivers are passed over) and published ports: the ones that are needed."""
    bridged = sorted((n for n in networks if n.bridge), key=lambda n: n.bridge)
    ports = list(elements)
    families = [IP] * bool(bridged) + [IP6] * any(n.subnet6 for n in bridged)
    return [_table(family, scope, bridged, ports) for family in families]


def _table(family: str, scope: str, networks: list[Network], elements: Sequence[Element]) -> Table:
    ours = _names(networks)
    gateways = ", ".join(at for n in networks if (at := n.gateway if family == IP else n.gateway6))
    to_maps = [
        f"meta l4proto {_PROTOCOLS} dnat {family} to {family} daddr . meta l4proto . th dport map @{MAP_ONE}",
        f"meta l4proto {_PROTOCOLS} dnat {family} to meta l4proto . th dport map @{MAP_ANY}",
    ]
    chains = [
        Chain("raw", "type filter hook prerouting priority raw; policy accept;", _raw(family, ours)),
        Chain("publish", "", to_maps),
        Chain(
            "prerouting",
            "type nat hook prerouting priority dstnat; policy accept;",
            [
                # a neighbour must not reach what is published on the loopback by naming 127.0.0.1 in its packets
                f"{family} daddr {_LOOPBACK[family]} return",
                # First, for who publishes port 53 does not answer for us. Whichever gateway is asked, the one that answers is that
                # of the network that the query comes from: a workload may have left the one that its resolv.conf names.
                f"{family} daddr {{ {gateways} }} {_QUERIES} dnat {family} to iifname map @{MAP_NAMES}",
                "fib daddr type local jump publish",
            ],
        ),
        Chain("output", "type nat hook output priority -100; policy accept;", _output(family)),
        Chain("forward", "type filter hook forward priority filter; policy accept;", _forward(networks, ours)),
        Chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", _postrouting(family, networks, ours)),
    ]
    return Table(family, scope, chains, [e for e in elements if e.family == family])


def _names(networks: Iterable[Network]) -> str:
    return "{ " + ", ".join(f'"{n.bridge}"' for n in networks) + " }"


def _raw(family: str, ours: str) -> list[str]:
    # route_localnet is on for our bridges: without these a workload could talk to 127.0.0.1 of the host
    return [f"iifname {ours} {family} {side} {_LOOPBACK[family]} drop" for side in ("daddr", "saddr")]


def _output(family: str) -> list[str]:
    # IPv6 has no route_localnet: what is sent to ::1 can not leave the loopback, and is refused at once if it is left alone
    alone = [f"ip6 daddr {_LOOPBACK[IP6]} return"] if family == IP6 else []
    return [*alone, "fib daddr type local jump publish"]


def _forward(networks: list[Network], ours: str) -> list[str]:
    inside = []
    for network in networks:
        both = f'iifname "{network.bridge}" oifname "{network.bridge}"'
        inside += [f"{both} accept"] if network.settings.icc else [f"{both} ct status dnat accept", f"{both} drop"]
    closed = [f'{side} "{n.bridge}" drop' for n in networks if n.internal for side in ("iifname", "oifname")]
    return [
        f"iifname != {ours} oifname != {ours} accept",
        "ct state established,related accept",
        *inside,
        *closed,
        f"oifname {ours} ct status dnat accept",
        f"oifname {ours} drop",
    ]


def _postrouting(family: str, networks: list[Network], ours: str) -> list[str]:
    rules = [f"oifname {ours} ip saddr {_LOOPBACK[IP]} masquerade"] if family == IP else []
    for network in networks:
        subnet = network.subnet if family == IP else network.subnet6
        if not subnet:
            continue
        if not network.internal and network.settings.masquerade:
            rules.append(f"{family} saddr {subnet} oifname != {ours} masquerade")
        # a workload that reaches one of its own network by the host's address: the answer must come back by us
        rules.append(f'{family} saddr {subnet} oifname "{network.bridge}" ct status dnat masquerade')
    return rules


def element(port: Published, address: str) -> Element:
    """The map element that publishes a port of the workload at `address`, which is of the port's version of IP."""
    family = IP6 if port.version == 6 else IP
    key: tuple[str, ...] = (port.protocol, str(port.host_port))
    value = (address, str(port.container_port))
    if port.host_ip in (ANY, ANY6):
        return Element(family, MAP_ANY, key, value)
    return Element(family, MAP_ONE, (port.host_ip, *key), value)


def name_element(bridge: str, gateway: str, port: int) -> Element:
    """The map element by which the queries of a network's workloads reach the DNS server at its gateway."""
    return Element(IP6 if ":" in gateway else IP, MAP_NAMES, (f'"{bridge}"',), (gateway, str(port)))


def add_elements(scope: str, elements: Iterable[Element]) -> str:
    """A script that adds elements to the maps of the tables."""
    return "".join(f"add element {e.family} {scope} {e.map} {{ {e} }}\n" for e in elements)


def delete_elements(scope: str, elements: Iterable[Element]) -> str:
    """A script that removes elements; it fails if one of them is not there."""
    return "".join(f"delete element {e.family} {scope} {e.map} {{ {' . '.join(e.key)} }}\n" for e in elements)


def delete_table(family: str, scope: str) -> str:
    """A script that removes a table, also if it is not there."""
    return f"add table {family} {scope}\ndelete table {family} {scope}\n"
