"""What a visit is asked for: the words of the engine, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from bothy.containers.model import ContainerPlan

LIVE = "live"  # what a running container sees
DISK = "disk"  # its root as a start would mount it, to be written to
COPY = "copy"  # the same, to be looked at: what would be written is not
BARE = "bare"  # its root file system alone, without anything mounted in it
LAYERS = "layers"  # its own layer, what is below it, and both together
FOLDER = "folder"  # no container's, but the folder of the host that the plan calls its own layer: a volume

STAT, GET, PUT, EXPORT, CHANGES, LAYER = "stat", "get", "put", "export", "changes", "layer"


@dataclass(frozen=True)
class Place:
    """Where a visit of a container goes. `pid` and `cgroup`: the init of a running one (0: none), and the group that it is in.

    `id_base` as in ContainerPlan; of a running one its own. `desk` is a folder of the engine's that is covered by a tmpfs for as
    long as the visit lasts, seen by it alone.
    """

    view: str
    plan: ContainerPlan
    desk: str
    pid: int = 0
    id_base: int = 0


@dataclass(frozen=True)
class Request:
    """`op` is one of the words above. `path` is inside the workload's root.

    `skipped`: folders that are told without what is in them, unless one of them is asked for. `own`: files and folders that
    are there for us to mount something on; empty ones are no change of the workload's.
    `user`: what is put there belongs to this user (Docker's words, see `bothy.containers.users`); empty: to whom the archive says.
    `strict`: no folder takes the place of another kind of file, or the other way round. `shown`: what is got is called so in the
    archive; empty: as it is called.
    """

    op: str
    path: str = "/"
    skipped: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    user: str = ""
    strict: bool = False
    shown: str = ""
