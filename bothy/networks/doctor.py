"""`network doctor`: what is reachable from where, and what in the host's kernel keeps it from working. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from bothy.errors import Broken
from bothy.linux import links
from bothy.networks import bridge, foreign
from bothy.networks.model import Network, Published
from bothy.networks.nftables import Nftables
from bothy.networks.ports import ANY, ANY6, program_at

HOST, LAN, WORLD = "host", "lan", "world"
ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Exposure:
    """A published port, and from where it can be reached: `host` (its own loopback), `lan` (private addresses) or `world` (there is
    an address that is routed on the Internet). `at` are the host's addresses that it is reached at."""

    port: Published
    workload: str
    target: str
    reach: str
    at: list[str]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `about` is a network, a port or a switch."""

    level: str
    about: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Findings:
    exposures: list[Exposure] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)


def examine(
    nft: Nftables,
    scope: str,
    networks: list[Network],
    targets: Mapping[Published, str],
    holders: Mapping[Published, tuple[str, bool]],
    *,
    silent: Iterable[Network] = (),
    tables_are_right: bool,
) -> Findings:
    """Look at everything. `networks` are those that have a bridge in the kernel; `holders`: whose a port is, and whether the daemon
    could reserve it; `silent`: networks whose names nobody answers for."""
    known = links.addresses()
    ours = {n.bridge for n in networks}
    mine = [ip_interface(a) for name, found in known.items() if name not in ours for a in found]
    exposures = [_exposure(port, workload, targets.get(port, ""), mine) for port, (workload, _) in holders.items()]
    problems = _switches(networks)
    if not tables_are_right:
        problems.append(
            Finding(
                ERROR,
                scope,
                "the engine's nftables tables are not as it made them",
                "they are made anew in a moment; see nft monitor",
            )
        )
    problems += _bridges(networks, known)
    problems += _overlaps(networks, known)
    problems += _chains(nft, scope, networks)
    problems += [_silent(network) for network in silent]
    problems += [_taken(port) for port, (_, reserved) in holders.items() if not reserved]
    return Findings(sorted(exposures, key=lambda e: (e.port.host_port, e.port.protocol, e.port.host_ip)), networks, problems)


def report(found: Findings, names: Mapping[str, str]) -> dict[str, Any]:
    """The findings for programs to read; `names` are the workloads' by id."""
    return {
        "Ports": [
            {
                "Workload": e.workload,
                "Name": names.get(e.workload, ""),
                "Port": e.port.container_port,
                "Protocol": e.port.protocol,
                "HostIp": e.port.host_ip,
                "HostPort": e.port.host_port,
                "Target": e.target,
                "Reach": e.reach,
                "At": e.at,
            }
            for e in found.exposures
        ],
        "Networks": [
            {
                "Name": n.name,
                "Bridge": n.bridge,
                "Subnets": [subnet for subnet in (n.subnet, n.subnet6) if subnet],
                "Internal": n.internal,
            }
            for n in found.networks
        ],
        "Problems": [{"Level": p.level, "About": p.about, "Message": p.message, "Hint": p.hint} for p in found.problems],
    }


def _exposure(port: Published, workload: str, target: str, mine: Iterable[Any]) -> Exposure:
    """Who can reach a port: by the host's addresses that it is published on."""
    if port.host_ip in (ANY, ANY6):
        at = [i.ip for i in mine if i.version == port.version and not (i.ip.is_loopback or i.ip.is_link_local)]
    else:
        at = [ip_address(port.host_ip)]
    outside = [address for address in at if not address.is_loopback]
    reach = WORLD if any(address.is_global for address in outside) else LAN if outside else HOST
    loopback = ["127.0.0.1"] if port.host_ip == ANY else []
    return Exposure(port, workload, target, reach, loopback + [str(address) for address in at])


def _switches(networks: list[Network]) -> list[Finding]:
    found = []
    wanted = [("ipv4/ip_forward", "1", "workloads reach nobody outside, and nobody reaches them")] if networks else []
    if any(n.subnet6 for n in networks):
        wanted.append(("ipv6/conf/all/forwarding", "1", "workloads reach nobody outside by IPv6"))
    wanted += [(f"ipv4/conf/{n.bridge}/route_localnet", "1", "published ports are not reached at 127.0.0.1") for n in networks]
    for name, value, effect in wanted:
        if bridge.read_sysctl(name) not in ("", value):
            switch = "net." + name.replace("/", ".")
            found.append(Finding(ERROR, switch, f"{switch} is off: {effect}", f"sysctl -w {switch}={value}"))
    return found


def _bridges(networks: list[Network], known: Mapping[str, list[str]]) -> list[Finding]:
    found = []
    for network in networks:
        if not bridge.exists(network.bridge):
            found.append(Finding(ERROR, network.name, f"its bridge {network.bridge} is gone", "restart bothyd, and its workloads"))
            continue
        wanted = [f"{network.gateway}/{ip_network(network.subnet).prefixlen}"]
        missing = [address for address in wanted if address not in known.get(network.bridge, [])]
        found += [
            Finding(
                ERROR,
                network.name,
                f"its bridge {network.bridge} has lost its address {a}",
                f"ip addr add {a} dev {network.bridge}",
            )
            for a in missing
        ]
    return found


def _overlaps(networks: list[Network], known: Mapping[str, list[str]]) -> list[Finding]:
    """Subnets that other links of this host have too, and routes that lead into them."""
    found = []
    for network in networks:
        subnets = [ip_network(subnet) for subnet in (network.subnet, network.subnet6) if subnet]
        elsewhere = {ip_interface(a).network: name for name, there in known.items() if name != network.bridge for a in there}
        routes = {ip_network(r.destination): "a route" for r in links.routes() if r.destination != "default"}
        for subnet in subnets:
            for other, whose in {**routes, **elsewhere}.items():
                if other.version == subnet.version and other.overlaps(subnet) and (whose != "a route" or other != subnet):
                    message = f"its subnet {subnet} overlaps {other}, which is that of {whose}"
                    found.append(Finding(WARNING, network.name, message, "make the network anew with another --subnet"))
    return found


def _chains(nft: Nftables, scope: str, networks: list[Network]) -> list[Finding]:
    """Chains of others that drop what is forwarded, or what comes to the host: what they drop is lost, whatever our tables say."""
    found = []
    ipv6 = any(n.subnet6 for n in networks)
    for chain, what in (("FORWARD", "packets"), ("INPUT", "queries for names")):
        for program in foreign.dropping(nft, chain, ipv6=ipv6):
            hint = f"{program} -I {chain} -i BRIDGE -j ACCEPT"
            closed = [n for n in networks if not foreign.is_open(program, chain, n.bridge)]
            found += [
                Finding(ERROR, n.name, f"the {chain} chain of {program} drops its {what}", hint.replace("BRIDGE", n.bridge))
                for n in closed
            ]
    try:
        listed = [entry["chain"] for entry in nft.query("list chains") if "chain" in entry]
    except Broken:
        return found
    for one in listed:
        theirs = one.get("table") != scope and (one.get("table"), one.get("name")) not in (("filter", c) for c in foreign.CHAINS)
        if theirs and one.get("hook") in ("forward", "input") and one.get("policy") == "drop":
            where = f"{one['family']} {one['table']} {one['name']}"
            hint = "let its rules accept what comes from and goes to " + ", ".join(n.bridge for n in networks)
            found.append(Finding(WARNING, where, f"chain {where} drops what its own rules do not accept", hint))
    return found


def _silent(network: Network) -> Finding:
    message = "nobody answers for the names of its workloads: no socket could be bound at its gateway"
    return Finding(ERROR, network.name, message, "restart bothyd; its log says why")


def _taken(port: Published) -> Finding:
    whose = program_at(port)
    by = f" by {whose}" if whose else ""
    return Finding(
        WARNING,
        str(port),
        f"host port {port.host_port}/{port.protocol} is bound{by} as well: the workload gets what arrives",
        "end that program, or publish on another port",
    )
