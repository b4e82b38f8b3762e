"""The noun of the volumes room, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ANONYMOUS = "com.docker.volume.anonymous"


@dataclass(frozen=True)
class Volume:
    """`mountpoint` is the folder on the host that workloads see. `created` is RFC 3339 in UTC."""

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
