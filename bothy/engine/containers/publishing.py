"""A workload's published ports: those it is started with, those that come and go while it runs. What is changed stays so."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bothy.engine import ports
from bothy.engine.hall import Hall
from bothy.engine.model import HostConfig, PortBinding, PublishedPort, Workload
from bothy.engine.workloads import Live
from bothy.errors import Conflict, Invalid, NotFound
from bothy.networks.model import PortRequest, Published

Bindings = dict[str, list[PortBinding] | None]


@dataclass(frozen=True)
class PortChoice:
    """Which of a workload's published ports: those of `container_port`; only on `host_ip`, only at `host_port`, where given."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0

    def fits(self, port: PublishedPort) -> bool:
        return (
            (port.container_port, port.protocol) == (self.container_port, self.protocol)
            and self.host_ip in ("", port.host_ip)
            and self.host_port in (0, port.host_port)
        )


def publish(hall: Hall, record: Workload) -> list[PublishedPort]:
    """At a start: publish what its configuration asks for, all or none. Raises what `Networks.publish` does."""
    host = record.host_config
    wanted = ports.publications(record.config.exposed_ports, host.port_bindings, publish_all=host.publish_all_ports)
    return _published(hall.networks.publish(record.id, [_request(p) for p in wanted]))


async def add(hall: Hall, live: Live, bindings: Bindings) -> list[PublishedPort]:
    """Publish more ports, at once if it runs and at every start from now on. Returns the new ones (none if it does not run).

    Raises Invalid, Conflict (a port that somebody has, and who; no network to publish on), Forbidden, Unsupported; then nothing has
    changed.
    """
    wanted = ports.publications((), bindings, publish_all=False)
    if not wanted:
        raise Invalid("no port was named", hint="such as 8080:80")
    async with live.lock:
        _check(live)
        record = live.record
        found: list[Published] = []
        if live.keeper is not None:
            found = hall.networks.publish(live.id, [_request(p) for p in wanted])
            if not found:
                raise Conflict(f"{record.name} is on no network that leads out", hint="bothy network connect puts it on one")
        merged = _copied(record.host_config.port_bindings)
        for publication in wanted:
            key = f"{publication.container_port}/{publication.protocol}"
            merged.setdefault(key, []).append(PortBinding(publication.host_ip, publication.host_port))
        try:
            _keep(hall, live, replace(record.host_config, port_bindings=dict(merged)))
        except BaseException:
            hall.networks.unpublish(live.id, found)
            raise
        hall.networks.attached(live.id)
        return _published(found)


async def remove(hall: Hall, live: Live, choice: PortChoice) -> list[PublishedPort]:
    """Publish ports no more, now and at every start from now on. Returns those that were published. Raises NotFound, Conflict."""
    async with live.lock:
        _check(live)
        record = live.record
        gone = [port for port in record.ports if choice.fits(port)]
        host = record.host_config
        everything = ports.publications(record.config.exposed_ports, host.port_bindings, publish_all=host.publish_all_ports)
        left = [publication for publication in everything if not is_chosen(choice, publication, gone)]
        if not gone and len(left) == len(everything):
            raise NotFound(
                f"{choice.container_port}/{choice.protocol} of {record.name} is not published",
                hint=f"bothy port {record.name} lists what is",
            )
        bindings: dict[str, list[PortBinding]] = {}
        for publication in left:
            key = f"{publication.container_port}/{publication.protocol}"
            bindings.setdefault(key, []).append(PortBinding(publication.host_ip, publication.host_port))
        hall.networks.unpublish(live.id, [Published(p.container_port, p.protocol, p.host_ip, p.host_port) for p in gone])
        _keep(hall, live, replace(host, port_bindings=dict(bindings), publish_all_ports=False))
        return gone


def current(hall: Hall, workload: str) -> list[PublishedPort]:
    """What a workload has published now."""
    return _published(hall.networks.published(workload))


def is_chosen(choice: PortChoice, asked: ports.Publication, gone: list[PublishedPort]) -> bool:
    """Whether it is this that was asked for what the choice takes away; where any host port would do, by what came of it."""
    if (asked.container_port, asked.protocol) != (choice.container_port, choice.protocol):
        return False
    if choice.host_ip and asked.host_ip and asked.host_ip != choice.host_ip:
        return False
    if not choice.host_port or asked.low <= choice.host_port <= asked.high:
        return True
    return not asked.low and any(port.host_port == choice.host_port for port in gone)


def _check(live: Live) -> None:
    record = live.record
    if live.removed:
        raise NotFound(f"No such container: {record.id}")
    if record.host_config.network_mode in ("host", "none") or not record.networking.endpoints_config:
        raise Conflict(
            f"{record.name} has no network of its own to publish ports of (its mode is {record.host_config.network_mode})",
            hint="a workload with --network host has the host's ports already",
        )


def _keep(hall: Hall, live: Live, host: HostConfig) -> None:
    hall.workloads.amend(live, host_config=host, ports=current(hall, live.id))
    hall.tell(live.record, "update")


def _copied(bindings: Bindings) -> dict[str, list[PortBinding]]:
    """With a binding for every port: none means any host port."""
    return {key: list(found or [PortBinding()]) for key, found in bindings.items()}


def _request(asked: ports.Publication) -> PortRequest:
    return PortRequest(asked.container_port, asked.protocol, asked.host_ip, asked.host_port)


def _published(found: list[Published]) -> list[PublishedPort]:
    return [PublishedPort(p.container_port, p.protocol, p.host_ip, p.host_port) for p in found]
