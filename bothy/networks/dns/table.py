"""What the engine tells the DNS server: one file a workload that runs, put in place by rename(2), unlinked at its end.

<run>/names/<workload id>
    {"endpoints": [{"network": id, "addresses": ["172.30.0.2", "fd00::2"], "names": ["web", "0123456789ab"]}],
     "servers": ["192.0.2.1"]}

The server is told by inotify(7), whose event is there when rename or unlink return: no answer is older than these calls.
The files outlive bothyd, as the workloads do; the next one goes on with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bothy.networks.dns import FOLDER
from bothy.paths import Paths


@dataclass(frozen=True)
class Endpoint:
    """A workload on one network (by id): its addresses without prefix lengths, and the names that the others there may use.

    The first name is the one that an address is told to belong to (PTR). The same name on several workloads means all of them.
    """

    network: str
    addresses: Sequence[str]
    names: Sequence[str]


def folder(paths: Paths) -> str:
    """Where the files are."""
    return f"{paths.run}/{FOLDER}"


def tell(paths: Paths, workload: str, endpoints: Iterable[Endpoint], servers: Sequence[str] = ()) -> None:
    """From now on these are the workload's names; they take the place of any it had. No endpoints: as `forget`.

    `endpoints` in the order of its interfaces: where two networks know a name, the first one's is told to the workload. `servers`
    (addresses) are asked for the workload in the place of the host's. Takes microseconds. Raises OSError; then nothing has changed.
    """
    told = [{"network": e.network, "addresses": list(e.addresses), "names": list(e.names)} for e in endpoints]
    if not told:
        forget(paths, workload)
        return
    data = json.dumps({"endpoints": told, "servers": list(servers)}).encode()
    place = folder(paths)
    if _read(f"{place}/{workload}") == data:
        return  # a daemon that comes back tells all of them again, and to replace a file may cost a write to disk
    new = f"{place}/.{workload}"
    try:
        _write(new, data)
    except FileNotFoundError:
        os.makedirs(place, mode=0o700, exist_ok=True)
        _write(new, data)
    os.rename(new, f"{place}/{workload}")


def forget(paths: Paths, workload: str) -> None:
    """The workload has no names any more; one that had none is no error. Raises OSError."""
    try:
        os.unlink(f"{folder(paths)}/{workload}")
    except FileNotFoundError:
        pass


def told(paths: Paths) -> set[str]:
    """The workloads that have names."""
    try:
        return {name for name in os.listdir(folder(paths)) if not name.startswith(".")}
    except FileNotFoundError:
        return set()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
