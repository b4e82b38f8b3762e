"""Ports as they are asked for: `80/tcp`, `8000-8010/udp`, host ports that are numbers, ranges or left to the engine."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bothy.engine.model import PortBinding
from bothy.errors import Invalid

_HINT = "use [HOST_IP:][HOST_PORT:]PORT[/tcp|udp|sctp], with numbers from 1 to 65535"
PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True)
class Publication:
    """One port to publish. `low` and `high` bound the host port: equal for a fixed one, both 0 for any free one."""

    container_port: int
    protocol: str
    host_ip: str = ""
    low: int = 0
    high: int = 0

    @property
    def host_port(self) -> str:
        """In Docker's words: empty for any, a number, a range."""
        return "" if not self.low else str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def parse(text: str) -> tuple[list[int], str]:
    """The numbers and the protocol of `80`, `80/udp`, `8000-8010/tcp`. Raises Invalid."""
    numbers, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise Invalid(f"invalid protocol {protocol!r} in port {text!r}", hint=_HINT)
    low, high = span(numbers, text)
    if not low:
        raise Invalid(f"invalid port {text!r}", hint=_HINT)
    return list(range(low, high + 1)), protocol


def span(text: str, whole: str) -> tuple[int, int]:
    """The bounds of a number or a range; (0, 0) for empty and 0. Raises Invalid."""
    if text in ("", "0"):
        return 0, 0
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise Invalid(f"invalid port {whole!r}", hint=_HINT)
    low, high = int(first), int(last if dash else first)
    if not (1 <= low <= high <= 65535):
        raise Invalid(f"invalid port {whole!r}: out of range", hint=_HINT)
    return low, high


def exposed(ports: Iterable[str]) -> list[tuple[int, str]]:
    """Every exposed port of a configuration as (number, protocol). Raises Invalid."""
    return [(number, protocol) for text in ports for numbers, protocol in [parse(text)] for number in numbers]


def publications(
    exposed_ports: Iterable[str], bindings: Mapping[str, list[PortBinding] | None], *, publish_all: bool
) -> list[Publication]:
    """All that has to be published, in a stable order. Raises Invalid.

    A port with an empty list of bindings gets a free host port, as Docker does with `-p 80`; with `publish_all` every
    exposed port that is not bound otherwise does too.
    """
    wanted: list[Publication] = []
    bound = set()
    for text, choices in bindings.items():
        numbers, protocol = parse(text)
        if len(numbers) > 1:
            raise Invalid(f"invalid port {text!r} in port bindings", hint="bind each port by itself")
        bound.add((numbers[0], protocol))
        for choice in choices or [PortBinding()]:
            low, high = span(choice.host_port, choice.host_port)
            wanted.append(Publication(numbers[0], protocol, _checked_ip(choice.host_ip), low, high))
    if publish_all:
        wanted += [Publication(n, p) for n, p in sorted(exposed(exposed_ports)) if (n, p) not in bound]
    return wanted


def _checked_ip(text: str) -> str:
    if text and not is_address(text):
        raise Invalid(f"invalid host address {text!r} in port bindings", hint=_HINT)
    return text


def is_address(text: str) -> bool:
    """Whether this is an IPv4 or IPv6 address."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False
