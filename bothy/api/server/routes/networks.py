"""/networks, and what Docker has no words for: ports of a running workload, and the doctor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bothy.api.server import replies
from bothy.api.server.call import Call
from bothy.api.server.routes.system import no_swarm
from bothy.api.server.schema import networks as shape
from bothy.engine.containers.publishing import PortChoice
from bothy.engine.model import EndpointConfig, PortBinding, api
from bothy.errors import Forbidden, Invalid, NotFound, Unsupported
from bothy.networks.model import IpamPool, NetworkRequest

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

_ONLY_ONE = ("host", "null")
_ELSEWHERE = ("macvlan", "ipvlan")


@dataclass(frozen=True)
class IpamConfig:
    """An entry of IPAM.Config."""

    subnet: str = ""
    ip_range: str = api("IPRange", "")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ipam:
    driver: str = ""
    config: list[IpamConfig] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Create:
    """The body of `POST /networks/create`. CheckDuplicate is not read: a name is never given twice."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = api("EnableIPv4", None)
    enable_ipv6: bool = api("EnableIPv6", False)
    ipam: Ipam = field(default_factory=Ipam, metadata={"api": "IPAM"})
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Connect:
    """The body of `POST /networks/{id}/connect` and `disconnect`."""

    container: str = ""
    endpoint_config: EndpointConfig | None = None
    force: bool = False


@dataclass(frozen=True)
class Ports:
    """The body of `POST /bothy/containers/{id}/ports`: PortBindings, as in HostConfig."""

    port_bindings: dict[str, list[PortBinding] | None] = field(default_factory=dict)


async def listing(call: Call) -> StreamResponse:
    """`GET /networks`."""
    return replies.reply([shape.network(n) for n in await call.engine.networks.list(call.filters())])


async def inspect(call: Call) -> StreamResponse:
    """`GET /networks/{id}`, with the workloads that are on it."""
    found = await call.engine.networks.get(call.params["id"])
    return replies.reply(shape.network(found, call.engine.networks.members(found)))


async def create(call: Call) -> StreamResponse:
    """Make a bridge network."""
    asked = await call.typed(Create)
    if asked.scope == "swarm" or asked.driver == "overlay" or asked.ingress:
        return await no_swarm(call)
    _check(asked)
    request = NetworkRequest(
        name=asked.name,
        pools=[IpamPool(c.subnet, c.gateway, c.ip_range, c.auxiliary_addresses) for c in asked.ipam.config],
        ipv6=asked.enable_ipv6,
        internal=asked.internal,
        attachable=asked.attachable,
        labels=asked.labels,
        options=asked.options,
        ipam_options=asked.ipam.options,
    )
    made, warnings = await call.engine.networks.create(request)
    return replies.reply({"Id": made.id, "Warning": "\n".join(warnings)}, 201)


def _check(asked: Create) -> None:
    """What only has the form of a request that can be met. Raises Forbidden, NotFound, Unsupported, Invalid."""
    if asked.driver in _ONLY_ONE:
        raise Forbidden(f'only one instance of "{asked.driver}" network is allowed')
    if asked.driver in _ELSEWHERE:
        raise Unsupported(f"the network driver {asked.driver} is not supported", hint="bridge is the only one")
    if asked.driver not in ("", "default", "bridge"):
        raise NotFound(f'plugin "{asked.driver}" not found', hint="bridge is the only driver")
    if asked.ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{asked.ipam.driver}" not found', hint="default is the only ipam driver")
    if asked.scope not in ("", "local"):
        raise Invalid(f"invalid scope {asked.scope!r}", hint="local is the only scope")
    if asked.config_only or asked.config_from.get("Network"):
        raise Unsupported("networks that are only a configuration are not supported")
    if asked.enable_ipv4 is False:
        raise Unsupported("networks without IPv4 are not supported", hint="leave EnableIPv4 out; IPv6 comes beside it")
    for pool in asked.ipam.config:
        if not pool.subnet and (pool.gateway or pool.ip_range or pool.auxiliary_addresses):
            raise Invalid("invalid network config:\ninvalid subnet : invalid CIDR block notation", hint="give its subnet too")


async def remove(call: Call) -> StreamResponse:
    """`DELETE /networks/{id}`."""
    await call.engine.networks.remove(call.params["id"])
    return replies.nothing()


async def prune(call: Call) -> StreamResponse:
    """Remove the networks that no workload has; answers with their names."""
    return replies.reply({"NetworksDeleted": await call.engine.networks.prune(call.filters())})


async def connect(call: Call) -> StreamResponse:
    """Put a workload on a network, at once if it runs."""
    asked = await call.typed(Connect)
    await call.engine.networks.connect(call.params["id"], _container(asked), asked.endpoint_config or EndpointConfig())
    return replies.nothing(200)


async def disconnect(call: Call) -> StreamResponse:
    """Take a workload off a network, at once if it runs."""
    asked = await call.typed(Connect)
    await call.engine.networks.disconnect(call.params["id"], _container(asked), force=asked.force)
    return replies.nothing(200)


def _container(asked: Connect) -> str:
    if not asked.container:
        raise Invalid("invalid request: Container: missing")
    return asked.container


async def doctor(call: Call) -> StreamResponse:
    """`GET /bothy/networks/doctor`: what is reachable from where, and what is wrong."""
    return replies.reply(await call.engine.networks.examine())


async def add_ports(call: Call) -> StreamResponse:
    """Publish more ports of a workload; answers with those that are published now because of it."""
    asked = await call.typed(Ports)
    found = await call.engine.containers.add_ports(call.params["id"], asked.port_bindings)
    return replies.reply({"Ports": [shape.port(port) for port in found]}, 201)


async def remove_ports(call: Call) -> StreamResponse:
    """Publish a port no more: `port` (`80/tcp`), and to choose among several `ip` and `host`; answers with those that are gone."""
    text, slash, protocol = call.required("port").partition("/")
    if not text.isascii() or not text.isdecimal():
        raise Invalid(f"parameter 'port': {text!r} is not a port", hint="such as 80/tcp")
    choice = PortChoice(int(text), protocol if slash else "tcp", call.text("ip"), call.integer("host") or 0)
    gone = await call.engine.containers.remove_ports(call.params["id"], choice)
    return replies.reply({"Ports": [shape.port(port) for port in gone]})
