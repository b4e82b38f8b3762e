"""The nouns of the volumes room, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bothy.volumes import options as driver_options

ANONYMOUS = "com.docker.volume.anonymous"


@dataclass(frozen=True)
class Volume:
    """`mountpoint` is the folder on the host that workloads see. `created` is RFC 3339 in UTC. `options` as `--opt` gave them."""

    name: str
    mountpoint: str
    created: str
    driver: str = "local"
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        """Made for a workload that gave it no name; removed with it."""
        return ANONYMOUS in self.labels

    @property
    def size(self) -> int:
        """Its quota in bytes, 0 for none: it is a disk image then."""
        return driver_options.size(self.options)

    @property
    def is_mounted(self) -> bool:
        """Whether something has to be mounted at `mountpoint` while it is used."""
        return bool(self.options)

    @property
    def is_elsewhere(self) -> bool:
        """Whether its data is not ours: another folder, a server, memory."""
        return bool(self.options.get("type"))

    def to_api(self) -> dict[str, Any]:
        """As the Docker Engine API shows a volume."""
        return {
            "CreatedAt": self.created,
            "Driver": self.driver,
            "Labels": self.labels or None,
            "Mountpoint": self.mountpoint,
            "Name": self.name,
            "Options": self.options or None,
            "Scope": "local",
        }


@dataclass(frozen=True)
class Snapshot:
    """A volume as it was. `atomic`: nobody could write while it was taken. `size` is the quota that the volume had, in bytes."""

    volume: str
    name: str
    created: str
    atomic: bool = True
    size: int = 0

    @property
    def ref(self) -> str:
        """The name by which every verb knows it: `data@monday`."""
        return f"{self.volume}@{self.name}"

    def to_api(self, used: int) -> dict[str, Any]:
        """As bothy's own API shows it; `used` is what it takes on disk, in bytes (blocks that it shares are counted too)."""
        return {
            "Name": self.name,
            "Volume": self.volume,
            "CreatedAt": self.created,
            "Atomic": self.atomic,
            "Quota": self.size,
            "Size": used,
        }
