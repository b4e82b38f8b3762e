"""--link: another container by names of one's own choice, as lines in the hosts file. Legacy: networks have names anyway."""

from __future__ import annotations

from bothy.engine.hall import Hall
from bothy.engine.model import EndpointConfig, HostConfig, NetworkingConfig, Workload
from bothy.errors import Conflict, Invalid, NotFound

Lines = list[tuple[str, list[str]]]


def check(hall: Hall, host: HostConfig, networking: NetworkingConfig) -> None:
    """Before a workload with these links is made. Raises NotFound, Invalid."""
    if host.links and host.network_mode == "host":
        raise Invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
    for text in [*host.links, *(link for e in networking.endpoints_config.values() if e for link in e.links)]:
        name, alias = parts(text)
        if not name or not alias:
            raise Invalid(f"bad format for links: {text}", hint="NAME or NAME:ALIAS")
        try:
            hall.workloads.find(name)
        except NotFound as exc:
            raise NotFound(f"could not get container for {name}: {exc.message}", hint=exc.hint) from None


def lines(hall: Hall, record: Workload) -> Lines:
    """Addresses and names of those that it links to. Raises Conflict for one that does not run where Docker does, NotFound."""
    found: Lines = []
    mode = record.host_config.network_mode
    for text in record.host_config.links:
        addresses = _lines(hall, text, mode)
        if not addresses:
            name, alias = parts(text)
            raise Conflict(f"Cannot link to a non running container: /{name} AS /{record.name}/{alias}", hint=f"bothy start {name}")
        found += addresses
    for network, endpoint in record.networking.endpoints_config.items():
        for text in (endpoint or EndpointConfig()).links:
            found += _lines(hall, text, network)
    return found


def _lines(hall: Hall, text: str, network: str) -> Lines:
    name, alias = parts(text)
    other = hall.workloads.find(name).record
    names = list(dict.fromkeys([alias, other.config.hostname or other.id[:12], other.name]))
    ends = [end for end in other.endpoints if end.network_name == network]
    return [(address, names) for end in ends for address in end.addresses]


def parts(text: str) -> tuple[str, str]:
    """The other's name and the alias; `/db:/web/alias`, as it is shown, is understood too."""
    name, colon, alias = text.partition(":")
    name = name.removeprefix("/")
    return name, alias.rpartition("/")[2] if colon else name
