"""Where an engine keeps its things. One frozen value, passed to whoever needs it; nothing reads the environment twice.

    root (BOTHY_ROOT, /var/lib/bothy)         survives a reboot
    ├── bothy.db                              records (SQLite, WAL)
    ├── images/                               the images room: blobs/, layers/, disks/, images.db
    ├── containers/<id>/                      upper/ work/ (or disk.raw), hosts, hostname, resolv.conf, container.log
    ├── machines/                             kernels/ initramfs/ templates/<key>/ accel.json
    ├── volumes/<name>/_data
    └── cache/                                anything that can be made again (seccomp programs)

    run (BOTHY_RUN, /run/bothy)               gone at reboot
    ├── bothy.sock  daemon.lock  daemon.log   the API socket, the lock of the one daemon, its log
    ├── names.sock  names/<id>                where bothyd speaks to the DNS server, the names of one running workload
    └── keepers/<id>/                         spec.json, control.sock, begun, exit.json, qmp.sock: one folder a running workload

Several engines run side by side, each with a root and a run folder of its own; `key` tells them apart where names are
global (bridges, nftables tables, cgroups).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_ROOT = "/var/lib/bothy"
DEFAULT_RUN = "/run/bothy"


@dataclass(frozen=True)
class Paths:
    root: Path
    run: Path

    @classmethod
    def from_environ(cls) -> Paths:
        """The folders named by BOTHY_ROOT and BOTHY_RUN, made absolute; the defaults where unset or empty."""
        root = os.environ.get("BOTHY_ROOT") or DEFAULT_ROOT
        run = os.environ.get("BOTHY_RUN") or DEFAULT_RUN
        return cls(Path(os.path.abspath(root)), Path(os.path.abspath(run)))

    @property
    def key(self) -> str:
        """Six hex digits that tell this engine's global names from another's; empty for the default engine."""
        if str(self.run) == DEFAULT_RUN:
            return ""
        return hashlib.sha256(os.fsencode(self.run)).hexdigest()[:6]

    @property
    def scope(self) -> str:
        """The name of this engine's nftables table and parent cgroup: `bothy` or `bothy-<key>`."""
        return f"bothy-{self.key}" if self.key else "bothy"

    @property
    def socket(self) -> Path:
        return self.run / "bothy.sock"

    @property
    def lock(self) -> Path:
        return self.run / "daemon.lock"

    @property
    def database(self) -> Path:
        return self.root / "bothy.db"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def container(self, workload: str) -> Path:
        """The folder that lives as long as the workload's record."""
        return self.root / "containers" / workload

    def keeper(self, workload: str) -> Path:
        """The folder that lives as long as the workload's keeper."""
        return self.run / "keepers" / workload
