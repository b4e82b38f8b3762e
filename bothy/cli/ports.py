"""`--publish` and `--expose`: Docker's port texts into the API's ExposedPorts and PortBindings.

8080:80        127.0.0.1:8080:80/udp        [::1]:8080:80        9000-9002:90-92        8000-8010:80        80
"""

from __future__ import annotations

from bothy.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Bindings = dict[str, list[dict[str, str]]]

PROTOCOLS = ("tcp", "udp", "sctp")
HINT = "--publish takes [[ip:]host-port:]port[/tcp|udp|sctp]; ports may be ranges"


def publish(texts: list[str]) -> Bindings:
    """PortBindings of `--publish` values, in order. Raises UsageError naming the value that makes no sense."""
    bindings: Bindings = {}
    for text in texts:
        for port, binding in _published(text):
            bindings.setdefault(port, []).append(binding)
    return bindings


def expose(texts: list[str]) -> list[str]:
    """The `port/protocol` names of `--expose` values."""
    names = []
    for text in texts:
        ports, protocol = _protocol(text, text)
        first, last = _range(ports, text)
        names += [f"{port}/{protocol}" for port in range(first, last + 1)]
    return names


def _published(text: str) -> list[tuple[str, dict[str, str]]]:
    rest, protocol = _protocol(text, text)
    address, host, port = _split(rest, text)
    first, last = _range(port, text)
    names = [f"{number}/{protocol}" for number in range(first, last + 1)]
    if not host:
        return [(name, {"HostIp": address, "HostPort": ""}) for name in names]
    low, high = _range(host, text)
    if high - low == last - first:
        return [(name, {"HostIp": address, "HostPort": str(low + i)}) for i, name in enumerate(names)]
    if first == last:  # any one of a range, for a single port
        return [(names[0], {"HostIp": address, "HostPort": f"{low}-{high}"})]
    raise UsageError(f"invalid port {text!r}: the two ranges differ in length", hint=HINT)


def _split(text: str, whole: str) -> tuple[str, str, str]:
    """(address, host port, port) of a text without its protocol."""
    address = ""
    if text.startswith("["):
        address, bracket, text = text[1:].partition("]:")
        if not bracket:
            raise UsageError(f"invalid port {whole!r}: the ] of the address is missing", hint=HINT)
        if ":" not in text:
            raise UsageError(f"invalid port {whole!r}: which port?", hint=HINT)
    head, _, port = text.rpartition(":")
    if not address and ":" in head:
        address, _, head = head.rpartition(":")
    return address, head, port


def _protocol(text: str, whole: str) -> tuple[str, str]:
    ports, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise UsageError(f"invalid port {whole!r}: there is no protocol {protocol!r}", hint=f"protocols are {', '.join(PROTOCOLS)}")
    return ports, protocol


def _range(text: str, whole: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if low.isdecimal() and (high.isdecimal() if dash else True):
        first, last = int(low), int(high or low)
        if first <= last <= 65535 and first >= 0:
            return first, last
    raise UsageError(f"invalid port {whole!r}: {text!r} is no port and no range of ports", hint=HINT)
