"""create: everything is checked first, then the record is written, then volumes are made. A failure leaves nothing of it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace

from bothy.engine import binds, health, limits, merge, names, ports, refusals, secrets, security, times
from bothy.engine.containers import joining, links, mounting, network, sharing
from bothy.engine.hall import Hall
from bothy.engine.model import Config, HostConfig, LogConfig, NetworkingConfig, Wall, Workload
from bothy.engine.mountspecs import Wanted
from bothy.errors import Invalid, NotFound, Unsupported
from bothy.images.model import Image
from bothy.oci import platform as platforms
from bothy.oci.platform import Platform

_RUNTIMES = {
    "": Wall.CONTAINER, "bothy": Wall.CONTAINER, "runc": Wall.CONTAINER, "io.containerd.runc.v2": Wall.CONTAINER, "vm": Wall.VM
}  # fmt: skip
_POLICIES = ("", "no", "always", "on-failure", "unless-stopped")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\.?")
_MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
_LOG_OPTIONS = ("max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size")
_SIZE = re.compile(r"(\d+)([bkmg]?)b?", re.IGNORECASE)


async def create(
    hall: Hall, name: str, config: Config, host: HostConfig, networking: NetworkingConfig, platform: str = ""
) -> tuple[Workload, list[str]]:
    """A new workload, not started, and warnings. `platform`: what the image must be for (`linux/amd64`), empty for what it is.

    Raises Invalid (impossible flags, what is named and not there), NotFound (the image, also one for another platform), Conflict
    (name), Unsupported, Unavailable (disk full); then there is no record, no folder and no volume that was not there before.
    """
    wall = wall_of(host)
    if not config.image:
        raise Invalid("no image specified")
    image = hall.images.resolve(config.image)
    warnings = check_platform(config.image, image, platform)
    config = merge.merged(config, image.config)
    with _not_the_image():
        host, networking = normal(hall, config, host, networking, machine=wall is Wall.VM)
        warnings += check(hall, config, host, networking, machine=wall is Wall.VM)
        links.check(hall, host, networking)
        wanted = binds.wanted(config, host, _inherited(hall, host))
    mounts = [mounting.record_of(hall, w) for w in wanted]
    name = names.checked(name) if name else names.friendly(hall.workloads.has_name)
    claimed = hall.spares.claim(image.id, host, has_mounts=bool(wanted)) if wall is Wall.VM else ""
    identity = claimed or names.new_id()
    path, *args = merge.arguments(config)
    record = Workload(
        id=identity,
        name=name,
        wall=wall,
        image=image.id,
        image_name=config.image,
        config=replace(config, hostname=_hostname(hall, config, host, identity)),
        host_config=host,
        networking=networking,
        created=times.now(),
        path=path,
        args=args,
        mounts=mounts,
        log_path=str(hall.paths.container(identity) / "container.log") if log_driver(host) == "json-file" else "",
        warnings=warnings,
    )
    try:
        live = hall.workloads.insert(record)
    except BaseException:
        hall.spares.forget(identity)
        raise
    if any(w.kind == "volume" or w.make_source for w in wanted):
        try:
            await mounting.make(hall, record, image)
        except BaseException:
            hall.workloads.forget(live)
            raise
    hall.tell(record, "create")
    return record, warnings


@contextlib.contextmanager
def _not_the_image() -> Iterator[None]:
    """Whatever else is not there is the request's mistake: at a NotFound, Docker's clients fetch the image and try again."""
    try:
        yield
    except NotFound as exc:
        raise Invalid(exc.message, hint=exc.hint) from exc


def _inherited(hall: Hall, host: HostConfig) -> list[Wanted]:
    """The mounts of those that `--volumes-from` names. Raises NotFound, Invalid in Docker's words (moby volumes_unix.go)."""
    found: list[Wanted] = []
    for text in host.volumes_from:
        name, _, mode = text.partition(":")
        if not name:
            raise Invalid(f"invalid volumes-from specification: '{text}'", hint="NAME or NAME:ro")
        found += binds.inherited(hall.workloads.find(name).record.mounts, mode)
    return found


def check_platform(name: str, image: Image, asked: str) -> list[str]:
    """A warning when the image is for another platform than this host's and none was asked for.

    Raises Invalid for what is no platform, NotFound when the image is for another one, Unsupported when both are not this host's.
    """
    there, ours = Platform(image.architecture, image.os, image.variant), platforms.host()
    if not asked:
        if not image.architecture or there.serves(ours):
            return []
        return [
            f"The requested image's platform ({there}) does not match the detected host platform ({ours}) and no specific platform "
            "was requested"
        ]
    try:
        wanted = platforms.parse(asked)
    except ValueError as exc:
        raise Invalid(str(exc), hint=f"this host's is {ours}") from None
    if not there.serves(wanted):
        raise NotFound(f"image {name} was found but it is for {there}, not for {wanted}", hint=f"this host runs {ours}")
    if not wanted.serves(ours):
        raise Unsupported(f"programs for {wanted} do not run on this host, which is {ours}")
    return []


def wall_of(host: HostConfig) -> Wall:
    """The wall that the runtime's name picks. Raises Invalid for an unknown one."""
    if host.runtime not in _RUNTIMES:
        raise Invalid(f"unknown or invalid runtime name: {host.runtime}", hint="known: bothy (a container), vm (a machine)")
    return _RUNTIMES[host.runtime]


def normal(
    hall: Hall, config: Config, host: HostConfig, networking: NetworkingConfig, *, machine: bool
) -> tuple[HostConfig, NetworkingConfig]:
    """Network mode and endpoints with one word for each network. Raises NotFound, Unsupported, Invalid."""
    host = joining.normal(hall, config, limits.adapted(host), machine=machine)
    if sharing.is_shared(host) and not config.network_disabled:
        return sharing.normal(hall, config, host, networking, machine=machine), NetworkingConfig()
    return network.normal(hall, config, host, networking)


def check(hall: Hall, config: Config, host: HostConfig, networking: NetworkingConfig, *, machine: bool) -> list[str]:
    """Every flag that can be seen to be impossible. Returns warnings. Raises Invalid or Unsupported."""
    warnings = limits.check(host, hall.host, machine=machine) + security.check(host, machine=machine)
    warnings += refusals.check(host, machine=machine)
    secrets.check(hall, host)
    refusals.check_endpoints(networking.endpoints_config.values())
    if machine:
        network.check_cards(networking)
    _check_words(config)
    check_policy(host)
    health.check(config.healthcheck, host.health_on_failure)
    log_size_and_files(host, 0, 0)
    ports.exposed(config.exposed_ports)
    published = ports.publications(config.exposed_ports, host.port_bindings, publish_all=host.publish_all_ports)
    if published and host.network_mode in ("host", "none"):
        warnings.append(f"Published ports are discarded when using {host.network_mode} network mode")
    macs = [config.mac_address, *(e.mac_address for e in networking.endpoints_config.values() if e)]
    for mac in filter(None, macs):
        if not _MAC.fullmatch(mac):
            raise Invalid(f"invalid MAC address: {mac}")
    return warnings


def _check_words(config: Config) -> None:
    if config.working_dir and not config.working_dir.startswith("/"):
        raise Invalid(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    if config.hostname and not _HOSTNAME.fullmatch(config.hostname):
        raise Invalid(f"invalid hostname format: {config.hostname}", hint="letters, digits, - and ., at most 63 characters")
    merge.signal_number(config.stop_signal)
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise Invalid(f"invalid stop timeout {config.stop_timeout}", hint="seconds, or -1 to wait for ever")


def check_policy(host: HostConfig) -> None:
    """A restart policy that can be meant. Raises Invalid."""
    policy = host.restart_policy
    if policy.name not in _POLICIES:
        raise Invalid(f"invalid restart policy: unknown policy '{policy.name}'", hint=f"known: {', '.join(_POLICIES[1:])}")
    if policy.name not in ("", "no") and host.auto_remove:
        raise Invalid("can't create 'AutoRemove' container with restart policy", hint="leave out --rm or --restart")
    if policy.maximum_retry_count < 0:
        raise Invalid("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise Invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'")


def log_driver(host: HostConfig) -> str:
    """`json-file` or `none`. Raises Invalid for another."""
    kind = host.log_config.type or "json-file"
    if kind not in ("json-file", "none"):
        raise Invalid(f"logger: no log driver named '{kind}' is registered", hint="known: json-file, none")
    return kind


def log_size_and_files(host: HostConfig, size: int, files: int) -> tuple[int, int]:
    """`max-size` in bytes and `max-file` of `--log-opt`, or the defaults given. Raises Invalid."""
    log_driver(host)
    asked: LogConfig = host.log_config
    for option in asked.config:
        if option not in _LOG_OPTIONS:
            raise Invalid(f"unknown log opt '{option}' for json-file log driver")
    text = asked.config.get("max-size", "")
    if text:
        match = _SIZE.fullmatch(text)
        if match is None or not int(match[1]):
            raise Invalid(f"invalid value for max-size: {text!r}", hint="use a size like 10m")
        size = int(match[1]) * 1024 ** " kmg".index(match[2].lower().replace("b", "") or " ")
    text = asked.config.get("max-file", "")
    if text:
        if not text.isdecimal() or not int(text):
            raise Invalid(f"max-file cannot be {text!r}", hint="use a number from 1")
        files = int(text)
    return size, files


def _hostname(hall: Hall, config: Config, host: HostConfig, identity: str) -> str:
    if config.hostname:
        return config.hostname
    if sharing.is_shared(host):
        return sharing.target(hall, host).record.config.hostname
    return os.uname().nodename if "host" in (host.network_mode, host.uts_mode) else identity[:12]
