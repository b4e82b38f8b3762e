"""--link: another container by names of one's own choice, as lines in the hosts file. Legacy: networks have names anyway."""

from __future__ import annotations

from bothy.engine.containers import hosts
from bothy.engine.hall import Hall
from bothy.engine.model import HostConfig, NetworkingConfig, Workload
from bothy.engine.workloads import Live
from bothy.errors import Conflict, Invalid, NotFound
from bothy.linux.hosts import HostsChange
from bothy.networks.catalog import DEFAULT

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
    """Addresses and names of those that it links to. Raises NotFound, Conflict on the default network for one that does not run."""
    found: Lines = []
    for text, network in _wanted(record):
        addresses = _lines(hall, text, network)
        if not addresses and network == DEFAULT:
            name, alias = parts(text)
            raise Conflict(f"Cannot link to a non running container: /{name} AS /{record.name}/{alias}", hint=f"bothy start {name}")
        found += [line for line in addresses if line not in found]
    return found


def refresh(hall: Hall, started: Workload) -> None:
    """One has been started, perhaps with another address: those that run and link to it have it in their hosts files."""
    for live in hall.workloads:
        record = live.record
        wanted = [(text, network) for text, network in _wanted(record) if parts(text)[0] in (started.name, started.id)]
        if not wanted or live.keeper is None or record.id == started.id:
            continue
        found = [line for text, network in wanted for line in _lines(hall, text, network)]
        _replace(hall, live, found)


def _replace(hall: Hall, live: Live, found: Lines) -> None:
    names = list(dict.fromkeys(" ".join(names) for _, names in found))
    new = list(dict.fromkeys(f"{address}\t{' '.join(names)}" for address, names in found))
    hosts.change(hall, live, HostsChange(add=new, drop_names=names))


def _wanted(record: Workload) -> list[tuple[str, str]]:
    """Its links, each with the network that it is on."""
    mode = record.host_config.network_mode
    found = [(text, mode) for text in record.host_config.links]
    for network, endpoint in record.networking.endpoints_config.items():
        if endpoint is not None:
            found += [(text, network) for text in endpoint.links]
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
