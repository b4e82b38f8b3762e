"""What the server knows: networks, the workloads on them, and so what a name is to whom.

    who asks (network, address) ─▶ Client: the networks it is on, in order ─▶ the first of them that knows the name answers

Whoever is on several networks sees the names of all, whichever gateway it asks; whoever is on none of a workload's networks can
not learn that it exists. Answers are kept as the bytes that were sent, for the bytes that asked; any change throws all away.
Pure data, no socket and no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import cycle

from bothy.networks.dns import message
from bothy.networks.dns.message import Query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOST_NAMES = ("host.docker.internal", "gateway.docker.internal", "host.containers.internal", "host.bothy.internal")
MAX_ADDRESSES, MAX_TURNS = 64, 8
ROOM = 1 << 20
_OVERHEAD = 400
_NAMES_OF_HOST = frozenset(map(message.encode, HOST_NAMES))


class Network:
    """One network: its own addresses (bytes), its subnets as (first address, prefix length), and who is on it.

    `names`: name on the wire → workload → addresses. `owners`: address → workload. `own`: what a client is here whose address no
    workload has told.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.id = str(told["id"])
        self.internal = bool(told.get("internal"))
        self.gateways = [message.pack(str(address)) for address in told["gateways"]]
        self.subnets = [_subnet(str(text)) for text in told["subnets"]]
        self.suffix = message.encode(str(told["name"]))
        self.names: dict[bytes, dict[str, list[bytes]]] = {}
        self.owners: dict[bytes, str] = {}
        self.clients: dict[str, Client] = {}

    def holds(self, address: bytes) -> bool:
        """Whether an address is one of this network's."""
        return any(
            len(first) == len(address) and int.from_bytes(address, "big") >> shift == int.from_bytes(first, "big") >> shift
            for first, shift in self.subnets
        )


class Client:
    """Who asks. `networks` in the order of its interfaces; `servers` are asked for it in the place of the host's; `kept` are the
    answers of this moment: bytes that asked (without the id) → bytes to answer, in turn where several addresses take turns."""

    __slots__ = ("kept", "networks", "servers")

    def __init__(self, networks: list[Network], servers: list[str]) -> None:
        self.networks, self.servers = networks, servers
        self.kept: dict[bytes, cycle[bytes]] = {}

    @property
    def leads_out(self) -> bool:
        """Whether names of the world are of any use to it."""
        return any(not network.internal for network in self.networks)


class Workload:
    """What one file said: network id → (addresses, names), and servers."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.endpoints: dict[str, tuple[list[bytes], list[bytes]]] = {}
        for endpoint in told["endpoints"]:
            addresses = [message.pack(str(address)) for address in endpoint["addresses"]]
            self.endpoints[str(endpoint["network"])] = (addresses, list(_encoded(endpoint["names"])))
        self.servers = [str(server) for server in told.get("servers") or ()]


class Zone:
    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self.workloads: dict[str, Workload] = {}
        self._room = ROOM

    def put_network(self, told: Mapping[str, Any]) -> Network:
        """A network, or another look at one. Raises KeyError, TypeError, ValueError for what is none; then nothing has changed."""
        network = Network(told)
        self.networks[network.id] = network
        for name, workload in self.workloads.items():
            _enter(network, name, workload)
        self._forget_answers()
        return network

    def drop_network(self, network: str) -> None:
        """There is no such network any more."""
        self.networks.pop(network, None)
        self._forget_answers()

    def put(self, name: str, told: Mapping[str, Any] | None) -> None:
        """What the file of a workload says now; None when there is none. Raises KeyError, TypeError, ValueError for what is none;
        then the workload has no names."""
        self._forget_answers()
        gone = self.workloads.pop(name, None)
        for network in self._of(gone):
            _leave(network, name, gone)
        if told is None:
            return
        workload = self.workloads[name] = Workload(told)
        for network in self._of(workload):
            _enter(network, name, workload)

    def client(self, network: Network, source: str) -> Client | None:
        """Who asks from `source` (text) on a network; None for an address that is not one of its own."""
        address = message.pack(source.partition("%")[0])
        if not network.holds(address):
            return None
        owner = self.workloads.get(network.owners.get(address, ""))
        found = Client(self._of(owner), owner.servers) if owner is not None else Client([network], [])
        self._keep(len(source) + _OVERHEAD)
        network.clients[source] = found
        return found

    def answer(self, client: Client, data: bytes, query: Query) -> bytes | None:
        """The answer to a query in one datagram, kept for the next one of the same bytes; None when the name is not ours."""
        found = self._find(client, query)
        if found is None:
            return None
        code, records = found
        turns = [records[at:] + records[:at] for at in range(min(len(records), MAX_TURNS))] or [records]
        answers = [message.answer(data, query, code, turn, query.limit)[2:] for turn in turns]
        self._keep(len(data) + sum(map(len, answers)) + _OVERHEAD)
        kept = client.kept[data[2:]] = cycle(answers)
        return data[:2] + next(kept)

    def whole(self, client: Client, data: bytes, query: Query) -> bytes | None:
        """`answer` for a stream, where everything fits."""
        found = self._find(client, query)
        return None if found is None else message.answer(data, query, *found)

    def _find(self, client: Client, query: Query) -> tuple[int, list[bytes]] | None:
        """The code and the records of an answer; None for a name that someone else may know.

        A name of ours that has no address of the kind asked for exists all the same: an empty answer, no NXDOMAIN, which some
        resolvers (musl) would take for the word on its other addresses too (RFC 8020).
        """
        if (address := message.address_of(query.name)) is not None:
            return _owner(client, query, address, self.workloads)
        addresses = _addresses(client, query.name)
        if addresses is None:
            return None if client.leads_out else (message.NXDOMAIN, [])
        records = []
        for address in addresses[:MAX_ADDRESSES]:
            kind = message.A if len(address) == 4 else message.AAAA
            if query.kind in (kind, message.ANY):
                records.append(message.record(kind, address))
        return message.NOERROR, records

    def _of(self, workload: Workload | None) -> list[Network]:
        """The known ones of a workload's networks, in order."""
        return [self.networks[found] for found in workload.endpoints if found in self.networks] if workload else []

    def _keep(self, size: int) -> None:
        """Make room: so much is going to be remembered for someone who asked. Nobody makes us remember without end."""
        self._room -= size
        if self._room < 0:
            self._forget_answers()
            self._room -= size

    def _forget_answers(self) -> None:
        self._room = ROOM
        for network in self.networks.values():
            for client in network.clients.values():
                client.kept.clear()
            network.clients.clear()


def _addresses(client: Client, name: bytes) -> list[bytes] | None:
    """A name alone means the first network that knows it, with a network's name behind it that network only."""
    for network in client.networks:
        if holders := network.names.get(name):
            return [address for addresses in holders.values() for address in addresses]
    for network in client.networks:
        if name.endswith(network.suffix) and (holders := network.names.get(name[: -len(network.suffix)] + b"\0")):
            return [address for addresses in holders.values() for address in addresses]
    if name in _NAMES_OF_HOST:
        return next((network.gateways for network in client.networks if not network.internal), None)
    return None


def _owner(client: Client, query: Query, address: bytes, workloads: Mapping[str, Workload]) -> tuple[int, list[bytes]] | None:
    """The name of an address. One of our networks' that nobody has is not asked for elsewhere: nobody else can know."""
    for network in client.networks:
        if owner := network.owners.get(address):
            names = workloads[owner].endpoints[network.id][1]
            wanted = names if query.kind in (message.PTR, message.ANY) else []
            return message.NOERROR, [message.record(message.PTR, name[:-1] + network.suffix) for name in wanted[:1]]
    if client.leads_out and not any(network.holds(address) for network in client.networks):
        return None
    return message.NXDOMAIN, []


def _enter(network: Network, name: str, workload: Workload) -> None:
    addresses, names = workload.endpoints.get(network.id, ([], []))
    for one in names:
        network.names.setdefault(one, {})[name] = addresses
    network.owners.update(dict.fromkeys(addresses, name))


def _leave(network: Network, name: str, workload: Workload | None) -> None:
    addresses, names = workload.endpoints[network.id] if workload else ([], [])
    for one in names:
        holders = network.names.get(one, {})
        holders.pop(name, None)
        if not holders:
            network.names.pop(one, None)
    for address in addresses:
        if network.owners.get(address) == name:
            del network.owners[address]


def _encoded(names: Iterable[Any]) -> Iterable[bytes]:
    """Names that can be asked for; an alias of any other form is passed over."""
    for name in names:
        try:
            yield message.encode(str(name))
        except ValueError:
            continue


def _subnet(text: str) -> tuple[bytes, int]:
    """A subnet's first address, and how many bits of an address are not the subnet's. Raises ValueError."""
    address, _, length = text.partition("/")
    first = message.pack(address)
    return first, len(first) * 8 - int(length)
