"""Other people's firewalls: an iptables FORWARD chain whose policy is drop, as Docker leaves it.

A drop in any table is final, so what our own table accepts would still be lost. Two rules that accept what comes from and goes to
our bridge are put before, in DOCKER-USER (which Docker keeps for others) or else at the head of FORWARD; our own table goes on to
decide what may pass. They are set by iptables itself, so that it keeps understanding its own table, and removed by `close`.
Nothing is done, and no program is started, where no such chain is.
"""

from __future__ import annotations

import subprocess

from bothy.errors import Broken
from bothy.log import logger
from bothy.networks.nftables import Nftables

_log = logger("networks")
LEGACY_TABLES = {"iptables": "/proc/self/net/ip_tables_names", "ip6tables": "/proc/self/net/ip6_tables_names"}
_PROGRAMS = {"iptables": "ip", "ip6tables": "ip6"}


def open_forward(nft: Nftables, bridges: list[str], *, ipv6: bool = False) -> None:
    """Let our bridges' traffic pass FORWARD chains that drop by default, with `ipv6` also those of IPv6.

    What can not be done is logged."""
    for program in dropping(nft, ipv6=ipv6):
        chain = "DOCKER-USER" if _iptables(program, "-S", "DOCKER-USER") else "FORWARD"
        for bridge in bridges:
            for side in ("-i", "-o"):
                rule = (chain, side, bridge, "-j", "ACCEPT")
                if not _iptables(program, "-C", *rule) and not _iptables(program, "-I", *rule):
                    _log.warning("the FORWARD chain of %s drops what it does not know, and takes no rule for %s", program, bridge)


def close_forward(nft: Nftables, bridges: list[str]) -> None:
    """Remove the rules that `open_forward` set."""
    for program in _programs(nft):
        for bridge in bridges:
            for side in ("-i", "-o"):
                for chain in ("DOCKER-USER", "FORWARD"):
                    while _iptables(program, "-D", chain, side, bridge, "-j", "ACCEPT"):
                        pass


def is_open(program: str, bridge: str) -> bool:
    """Whether a FORWARD chain that drops has our rules for a bridge."""
    chains = [_iptables(program, "-S", chain) for chain in ("DOCKER-USER", "FORWARD")]
    return all(f"{side} {bridge} -j ACCEPT" in "".join(chains) for side in ("-i", "-o"))


def _programs(nft: Nftables) -> list[str]:
    """The variants of iptables whose filter table exists in this network namespace."""
    found = [f"{name}-nft" for name, family in _PROGRAMS.items() if _policy(nft, family)]
    return found + [f"{name}-legacy" for name in _PROGRAMS if _has_legacy(name)]


def dropping(nft: Nftables, *, ipv6: bool = False) -> list[str]:
    """Those of them whose FORWARD policy is drop."""
    programs = {name: family for name, family in _PROGRAMS.items() if ipv6 or family == "ip"}
    found = [f"{name}-nft" for name, family in programs.items() if _policy(nft, family) == "drop"]
    legacy = [f"{name}-legacy" for name in programs if _has_legacy(name)]
    return found + [name for name in legacy if "-P FORWARD DROP" in _iptables(name, "-S", "FORWARD")]


def _policy(nft: Nftables, family: str) -> str:
    """The policy of `filter FORWARD` in nf_tables; empty without such a chain."""
    try:
        listing = nft.query(f"list chain {family} filter FORWARD")
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
