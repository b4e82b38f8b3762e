"""The text of the files by which a workload finds names: resolv.conf, hosts, hostname. Pure, but for reading the host's own.

A workload on a network asks the DNS server at its gateway, which asks the host's own. One that has none has a loopback of its own
all the same, so nameservers at the host's loopback (systemd-resolved, dnsmasq) are of no use in it and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from bothy.errors import Invalid

RESOLV_CONF = "/etc/resolv.conf"
RESOLVED_CONF = "/run/systemd/resolve/resolv.conf"
MAX_SERVERS = 3
"""As many as resolvers look at (MAXNS, resolv.conf(5))."""
_LOCAL_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def host_resolv_conf(path: str = RESOLV_CONF) -> str:
    """The host's resolv.conf, or systemd-resolved's with the real servers where that only names its stub. Empty without one."""
    text = _read(path)
    servers = nameservers(text)
    if servers and all(server.startswith("127.0.0.53") for server in servers):
        return _read(RESOLVED_CONF) or text
    return text


def nameservers(text: str) -> list[str]:
    """The servers that a resolv.conf names."""
    lines = (line.split() for line in text.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def resolv_conf(
    host: str,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    gateways: Sequence[str] = (),
) -> str:
    """A workload's resolv.conf: the host's (as text), without its loopback servers; what is given takes the place of what is there.

    With `gateways`, where our DNS server is, those are asked and nobody else: the server has been told of `servers`. A name without
    a dot is then looked up as it is before a domain is appended (ndots:0, as in Docker), unless `options` or the host's say
    otherwise. A search of `.` means none, as in Docker. Raises Invalid for a server that is not an address.
    """
    for server in servers:
        _address(server)
    if gateways:
        servers = gateways[:MAX_SERVERS]
    elif not servers:
        servers = [server for server in nameservers(host) if _usable(server)]
    if not search:
        search = _words(host, ("search", "domain"))
    if not options:
        options = _words(host, ("options",))
    if gateways and not any(option.startswith("ndots:") for option in options):
        options = [*options, "ndots:0"]
    lines = [f"nameserver {server}" for server in servers]
    if not lines:
        lines.append("# no nameserver of the host can be reached from here; give one with --dns")
    if search and list(search) != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def hosts(addresses: Iterable[tuple[str, Sequence[str]]], extra: Iterable[str] = (), gateway: str = "") -> str:
    """A workload's hosts file: loopback, (address, names) of its own, then `name:address` as given to --add-host.

    `host-gateway` as an address is the gateway's. Raises Invalid.
    """
    lines = [f"{address}\t{' '.join(names)}" for address, names in addresses]
    for entry in extra:
        name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
        if not (name and separator and address) or any(c.isspace() for c in entry):
            raise Invalid(f"{entry!r} is not a host entry", hint="give NAME:ADDRESS")
        if address == "host-gateway":
            if not gateway:
                raise Invalid(f"{entry!r}: this workload has no gateway", hint="host-gateway needs a bridge network")
            address = gateway
        lines.append(f"{_address(address.strip('[]'))}\t{name}")
    return _LOCAL_HOSTS + "".join(line + "\n" for line in lines)


def _words(text: str, keys: tuple[str, ...]) -> list[str]:
    """What follows the last line that begins with one of `keys`: a later line takes an earlier one's place (resolv.conf(5))."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in keys:
            found = words[1:]
    return found


def _usable(server: str) -> bool:
    try:
        address = ip_address(server.partition("%")[0])
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local)


def is_address(text: str, version: int) -> bool:
    """Whether this is an address of that version of IP."""
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise Invalid(f"{text!r} is not an IP address") from None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
