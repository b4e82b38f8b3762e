"""Every endpoint, in one list. The order matters where patterns overlap: what is more exact comes first."""

from __future__ import annotations

from bothy.api.server.router import Route
from bothy.api.server.routes import (
    archive,
    bothy,
    container_streams,
    containers,
    execs,
    images,
    networks,
    registry,
    secrets,
    storage,
    system,
    volumes,
    websocket,
)  # fmt: skip
from bothy.api.server.routes.system import no_swarm, unsupported

_BUILD = unsupported("building images", "build elsewhere, then bothy load -i FILE")
_PUSH = unsupported("pushing to a registry", "bothy save writes an archive")

SYSTEM = [
    Route("GET", "/_ping", system.ping),
    Route("HEAD", "/_ping", system.ping),
    Route("GET", "/version", system.version),
    Route("GET", "/info", system.info),
    Route("GET", "/events", system.events),
    Route("GET", "/system/df", system.df),
    Route("POST", "/auth", registry.auth),
    Route("GET", "/plugins", system.plugins),
]

CONTAINERS = [
    Route("GET", "/containers/json", containers.listing),
    Route("POST", "/containers/create", containers.create),
    Route("POST", "/containers/prune", containers.prune),
    Route("GET", "/containers/{id}/json", containers.inspect),
    Route("POST", "/containers/{id}/start", containers.start),
    Route("POST", "/containers/{id}/stop", containers.stop),
    Route("POST", "/containers/{id}/restart", containers.restart),
    Route("POST", "/containers/{id}/kill", containers.kill),
    Route("POST", "/containers/{id}/pause", containers.pause),
    Route("POST", "/containers/{id}/unpause", containers.unpause),
    Route("POST", "/containers/{id}/rename", containers.rename),
    Route("POST", "/containers/{id}/resize", containers.resize),
    Route("GET", "/containers/{id}/top", containers.top),
    Route("POST", "/containers/{id}/wait", container_streams.wait),
    Route("POST", "/containers/{id}/attach", container_streams.attach),
    Route("GET", "/containers/{id}/logs", container_streams.logs),
    Route("GET", "/containers/{id}/stats", container_streams.stats),
    Route("POST", "/containers/{id}/exec", execs.create),
    Route("DELETE", "/containers/{id}", containers.remove),
    Route("GET", "/containers/{id}/attach/ws", websocket.attach),
    Route("POST", "/containers/{id}/update", containers.update),
    Route("HEAD", "/containers/{id}/archive", archive.stat),
    Route("GET", "/containers/{id}/archive", archive.get),
    Route("PUT", "/containers/{id}/archive", archive.put),
    Route("GET", "/containers/{id}/export", archive.export),
    Route("GET", "/containers/{id}/changes", archive.changes),
    Route("POST", "/commit", archive.commit),
]

EXECS = [
    Route("POST", "/exec/{id}/start", execs.start),
    Route("POST", "/exec/{id}/resize", execs.resize),
    Route("GET", "/exec/{id}/json", execs.inspect),
]

IMAGES = [
    Route("GET", "/images/json", images.listing),
    Route("POST", "/images/create", images.create),
    Route("POST", "/images/load", images.load),
    Route("POST", "/images/prune", images.prune),
    Route("GET", "/images/get", images.save),
    Route("GET", "/images/search", registry.search),
    Route("GET", "/images/{name:path}/get", images.save),
    Route("GET", "/images/{name:path}/json", images.inspect),
    Route("GET", "/images/{name:path}/history", images.history),
    Route("POST", "/images/{name:path}/tag", images.tag),
    Route("POST", "/images/{name:path}/push", _PUSH),
    Route("DELETE", "/images/{name:path}", images.remove),
    Route("GET", "/distribution/{name:path}/json", registry.distribution),
    Route("POST", "/build", _BUILD),
    Route("POST", "/build/prune", system.no_cache),
]

NETWORKS = [
    Route("GET", "/networks", networks.listing),
    Route("GET", "/networks/{id}", networks.inspect),
    Route("POST", "/networks/create", networks.create),
    Route("POST", "/networks/prune", networks.prune),
    Route("POST", "/networks/{id}/connect", networks.connect),
    Route("POST", "/networks/{id}/disconnect", networks.disconnect),
    Route("DELETE", "/networks/{id}", networks.remove),
]

VOLUMES = [
    Route("GET", "/volumes", volumes.listing),
    Route("POST", "/volumes/create", volumes.create),
    Route("POST", "/volumes/prune", volumes.prune),
    Route("GET", "/volumes/{name}", volumes.inspect),
    Route("PUT", "/volumes/{name}", volumes.update),
    Route("DELETE", "/volumes/{name}", volumes.remove),
]

SWARM = [
    Route(method, f"/{noun}{rest}", no_swarm)
    for noun in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
    for rest in ("", "/{rest:path}")
    for method in ("GET", "POST", "DELETE")
]

BOTHY = [
    Route("POST", "/bothy/containers/{id}/prepare", bothy.prepare),
    Route("POST", "/bothy/containers/{id}/ports", networks.add_ports),
    Route("DELETE", "/bothy/containers/{id}/ports", networks.remove_ports),
    Route("POST", "/bothy/images/bootstrap", bothy.bootstrap),
    Route("GET", "/bothy/networks/doctor", networks.doctor),
    Route("GET", "/bothy/secrets", secrets.listing),
    Route("POST", "/bothy/secrets/create", secrets.create),
    Route("GET", "/bothy/secrets/{name}", secrets.inspect),
    Route("DELETE", "/bothy/secrets/{name}", secrets.remove),
    Route("POST", "/bothy/volumes/{name}/rename", storage.rename),
    Route("POST", "/bothy/volumes/{name}/resize", storage.resize),
    Route("POST", "/bothy/volumes/{name}/clone", storage.clone),
    Route("POST", "/bothy/volumes/{name}/snapshots", storage.snapshot),
    Route("POST", "/bothy/volumes/{name}/snapshots/{snapshot}/restore", storage.restore),
    Route("DELETE", "/bothy/volumes/{name}/snapshots/{snapshot}", storage.remove_snapshot),
    Route("HEAD", "/bothy/volumes/{volume}/archive", archive.stat),
    Route("GET", "/bothy/volumes/{volume}/archive", archive.get),
    Route("PUT", "/bothy/volumes/{volume}/archive", archive.put),
    Route("GET", "/bothy/snapshots", storage.snapshots),
    Route("GET", "/bothy/templates", bothy.templates),
    Route("POST", "/bothy/templates/prune", bothy.prune_templates),
    Route("DELETE", "/bothy/templates/{key}", bothy.remove_template),
    Route("POST", "/bothy/shutdown", bothy.shutdown),
]

ROUTES = [*SYSTEM, *CONTAINERS, *EXECS, *IMAGES, *NETWORKS, *VOLUMES, *SWARM, *BOTHY]
