"""Other people's firewalls: iptables chains whose policy is drop, FORWARD as Docker leaves it, INPUT as ufw and many hosts have it.

A drop in any table is final, so what our own table accepts would still be lost. Rules are put before: in DOCKER-USER (which Docker
keeps for others) or else at the head of FORWARD two that accept what comes from and goes to our bridge, of which our own table goes
on to decide; at the head of INPUT one that accepts what comes from our bridge and was a query for names. They are set by iptables
itself, so that it keeps understanding its own table, and removed by `shut`. Nothing is done, and no program is started, where no
such chain is.
"""

from __future__ import annotations

import subprocess

from bothy.errors import Broken
from bothy.log import logger
from bothy.networks.nftables import Nftables

_log = logger("networks")
LEGACY_TABLES = {"iptables": "/proc/self/net/ip_tables_names", "ip6tables": "/proc/self/net/ip6_tables_names"}
_PROGRAMS = {"iptables": "ip", "ip6tables": "ip6"}
_QUERIES = ("-m", "conntrack", "--ctstate", "DNAT", "--ctorigdstport", "53")  # our table has sent them on to another port
CHAINS = ("FORWARD", "INPUT")


def open_chains(nft: Nftables, bridges: list[str], *, ipv6: bool = False) -> None:
    """Let our bridges' traffic pass chains that drop by default, with `ipv6` also those of IPv6. What can not be done is logged."""
    for chain in CHAINS:
        for program in dropping(nft, chain, ipv6=ipv6):
            place = "DOCKER-USER" if chain == "FORWARD" and _iptables(program, "-S", "DOCKER-USER") else chain
            for bridge in bridges:
                for rule in _rules(chain, bridge):
                    if not _iptables(program, "-C", place, *rule) and not _iptables(program, "-I", place, *rule):
                        _log.warning("%s of %s drops what it does not know, and takes no rule for %s", chain, program, bridge)


def shut(nft: Nftables, bridges: list[str]) -> None:
    """Remove the rules that `open_chains` set."""
    for chain in CHAINS:
        places = ("DOCKER-USER", chain) if chain == "FORWARD" else (chain,)
        for program in _programs(nft, chain):
            for rule in (rule for bridge in bridges for rule in _rules(chain, bridge)):
                for place in places:
                    while _iptables(program, "-D", place, *rule):
                        pass


def is_open(program: str, chain: str, bridge: str) -> bool:
    """Whether a chain that drops has our rules for a bridge."""
    places = ("DOCKER-USER", chain) if chain == "FORWARD" else (chain,)
    return all(any(_iptables(program, "-C", place, *rule) for place in places) for rule in _rules(chain, bridge))


def dropping(nft: Nftables, chain: str, *, ipv6: bool = False) -> list[str]:
    """The variants of iptables in whose filter table the policy of a chain is drop."""
    programs = {name: family for name, family in _PROGRAMS.items() if ipv6 or family == "ip"}
    found = [f"{name}-nft" for name, family in programs.items() if _policy(nft, family, chain) == "drop"]
    legacy = [f"{name}-legacy" for name in programs if _has_legacy(name)]
    return found + [name for name in legacy if f"-P {chain} DROP" in _iptables(name, "-S", chain)]


def _rules(chain: str, bridge: str) -> list[tuple[str, ...]]:
    if chain == "INPUT":
        return [("-i", bridge, *_QUERIES, "-j", "ACCEPT")]
    return [(side, bridge, "-j", "ACCEPT") for side in ("-i", "-o")]


def _programs(nft: Nftables, chain: str) -> list[str]:
    """The variants of iptables whose filter table has a chain in this network namespace."""
    found = [f"{name}-nft" for name, family in _PROGRAMS.items() if _policy(nft, family, chain)]
    return found + [f"{name}-legacy" for name in _PROGRAMS if _has_legacy(name)]


def _policy(nft: Nftables, family: str, chain: str) -> str:
    """The policy of a chain of the table `filter` in nf_tables; empty without such a chain."""
    try:
        listing = nft.query(f"list chain {family} filter {chain}")
    except Broken:
        return ""
    return next((entry["chain"].get("policy", "") for entry in listing if "chain" in entry), "")


def _has_legacy(program: str) -> bool:
    try:
        with open(LEGACY_TABLES[program], encoding="ascii") as names:
            return "filter" in names.read().split()
    except OSError:
        return False


def _iptables(program: str, *words: str) -> str:
    """The program's output (a blank where it has none) when it succeeds, empty when it fails or is not there."""
    try:
        done = subprocess.run([program, "-w", "5", *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout or " " if done.returncode == 0 else ""
