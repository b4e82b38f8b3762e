"""The networks that an engine has, as data: found, made, forgotten, and written down in <root>/networks.json.

A network made by somebody has its subnets from the start; the default one chooses its own when it is first used.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network

from bothy.errors import Broken, Conflict, Forbidden, Invalid, NotFound
from bothy.jsonable import PLAIN
from bothy.networks import ipam
from bothy.networks.ipam import IPNetwork
from bothy.networks.model import IpamPool, Network, NetworkRequest
from bothy.paths import Paths

DEFAULT = "bridge"
BUILT_IN = {"bridge": "bridge", "host": "host", "none": "null"}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_Networks = list[Network]
_Subnets = list[IPNetwork]


class Catalog:
    """Networks by id. Changes are on disk when a method returns. The constructor raises Broken for a damaged file."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._file = paths.root / "networks.json"
        self._site = ""
        self._networks: dict[str, Network] = self._load()

    def list(self) -> _Networks:
        """All of them: bridge, host and none first."""
        return list(self._networks.values())

    def get(self, ref: str) -> Network:
        """A network by name, id or unique beginning of an id; `default` is the default bridge. Raises NotFound, Invalid."""
        ref = DEFAULT if ref in ("", "default") else ref
        named = [n for n in self._networks.values() if ref in (n.name, n.id)]
        found = named or [n for n in self._networks.values() if n.id.startswith(ref)]
        if len(found) > 1:
            raise Invalid(f"network {ref} is ambiguous ({len(found)} matches found based on ID prefix)", hint="give more of the id")
        if not found:
            raise NotFound(f"network {ref} not found", hint="bothy network ls lists them")
        return found[0]

    def design(self, request: NetworkRequest, taken: Iterable[IPNetwork]) -> Network:
        """The network that is asked for, with subnets that overlap nothing in `taken` and no other network. Not kept yet.

        Raises Conflict (name, bridge), Invalid, Forbidden (an overlap, a name that is built in), Unsupported, Unavailable.
        """
        self._check_name(request.name)
        used = [*taken, *self.subnets()]
        identity = secrets.token_hex(32)
        settings = Network(identity, request.name, "bridge", "", options=request.options).settings
        link = settings.bridge or (f"by{self._paths.key}-{identity[:6]}" if self._paths.key else f"by-{identity[:12]}")
        if any(link == n.bridge for n in self._networks.values()):
            raise Conflict(f"bridge {link} is already that of another network", hint="choose another name for the bridge")
        four = _asked(request.pools, 4)
        six = _asked(request.pools, 6) if request.ipv6 else None
        subnet = _free(four, used) if four else ipam.choose_subnet(used)
        subnet6 = (_free(six, used) if six else ipam.choose_subnet6(self.site(), used)) if request.ipv6 else None
        auxiliary = {**(four.auxiliary if four else {}), **(six.auxiliary if six else {})}
        return Network(
            id=identity,
            name=request.name,
            driver="bridge",
            created=now(),
            bridge=link,
            subnet=str(subnet),
            gateway=_gateway(four, subnet),
            internal=request.internal,
            labels=dict(request.labels),
            options=dict(request.options),
            ip_range=four.ip_range if four else "",
            subnet6=str(subnet6) if subnet6 else "",
            gateway6=_gateway(six, subnet6) if subnet6 else "",
            ip_range6=six.ip_range if six else "",
            auxiliary=auxiliary,
            attachable=request.attachable,
            ipam_options=dict(request.ipam_options),
        )

    def keep(self, network: Network) -> None:
        """Have a network from now on, new or changed. Raises OSError; then all is as before."""
        before = dict(self._networks)
        self._networks[network.id] = network
        self._save_or(before)

    def drop(self, network: Network) -> None:
        """Have it no more. Raises OSError; then all is as before."""
        before = dict(self._networks)
        del self._networks[network.id]
        self._save_or(before)

    def subnets(self, *, but: str = "") -> _Subnets:
        """The subnets of all networks, but those of the one with the id `but`."""
        texts = [text for n in self._networks.values() if n.id != but for text in (n.subnet, n.subnet6)]
        return [ip_network(text) for text in texts if text]

    def site(self) -> str:
        """This engine's own /48, from which IPv6 subnets are taken. Kept with the next network."""
        self._site = self._site or ipam.new_site()
        return self._site

    def _check_name(self, name: str) -> None:
        if name in BUILT_IN or name == "default":
            raise Forbidden(f"operation is not permitted on predefined {name} network")
        if not name.strip():
            raise Invalid("invalid name: name is empty")
        if not _NAME.fullmatch(name):
            raise Invalid(f"invalid network name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if any(n.name == name for n in self._networks.values()):
            raise Conflict(f"network with name {name} already exists")

    # -- the file

    def _load(self) -> dict[str, Network]:
        try:
            data = json.loads(self._file.read_bytes())
            known = [PLAIN.from_data(Network, entry) for entry in data["networks"]]
            self._site = str(data.get("site") or "")
        except FileNotFoundError:
            known = []
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise Broken(f"{self._file} is damaged: {exc}", hint="move it away; networks that you made must be made again") from exc
        names = {n.name for n in known}
        first = f"by{self._paths.key}0" if self._paths.key else "bothy0"
        for name, driver in BUILT_IN.items():
            if name not in names:
                known.append(Network(secrets.token_hex(32), name, driver, now(), bridge=first if driver == "bridge" else ""))
        order = list(BUILT_IN)
        known.sort(key=lambda n: order.index(n.name) if n.name in order else len(order))
        # the bridge's name goes with the run folder, not with the state: a copied state root must not take another engine's bridge
        return {n.id: replace(n, bridge=first) if n.name == DEFAULT else n for n in known}

    def _save_or(self, before: dict[str, Network]) -> None:
        try:
            self._save()
        except BaseException:
            self._networks = before
            raise

    def _save(self) -> None:
        """Write the networks down; the file is whole, old or new, whatever happens."""
        self._paths.root.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".new")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({"networks": PLAIN.to_data(self.list()), "site": self._site}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file)


def _asked(pools: Iterable[IpamPool], version: int) -> IpamPool | None:
    """The pool of one version of IP among those asked for, checked. Raises Invalid, Forbidden for two of them."""
    checked = [(pool, ipam.check(pool.subnet, pool.gateway, pool.ip_range, pool.auxiliary)) for pool in pools if pool.subnet]
    found = [pool for pool, subnet in checked if subnet.version == version]
    if len(found) > 1:
        raise Forbidden(f"bridge driver doesn't support multiple IPv{version} subnets", hint="make a network for each")
    return found[0] if found else None


def _free(pool: IpamPool, used: Iterable[IPNetwork]) -> IPNetwork:
    subnet = ip_network(pool.subnet)
    other = ipam.overlapping(subnet, used)
    if other is not None:
        raise Forbidden(
            "invalid pool request: Pool overlaps with other one on this address space",
            hint=f"{subnet} overlaps {other}, which this host has already: choose another, or leave it to bothy",
        )
    return subnet


def _gateway(pool: IpamPool | None, subnet: IPNetwork) -> str:
    return pool.gateway if pool and pool.gateway else str(subnet[1])


def now() -> str:
    """This moment, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
