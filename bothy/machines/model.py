"""The plan of one machine, as data: made by the engine, read by the keeper of the machine.

The guest runs the image's program as the child of its PID 1 (the agent); `spec` is the same OCI runtime spec that the image
would get as a container, of which the agent uses process, hostname, root.readonly, mounts (tmpfs and binds), sysctl,
masked and read-only paths.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bothy.linux.links import Attachment
from bothy.linux.secretfiles import SecretFile
from bothy.oci.runtime import Spec


@dataclass(frozen=True)
class Share:
    """A host folder or file that the guest sees at `destination` (a bind mount, 9p underneath).

    `subpath` is what is meant below the source, and never outside of it. `recursive`: mounts below it come along; `deep`: they are
    read-only too, if it is. `propagation`: so do those that come later, if not empty. `layers`: folders of an image, topmost first,
    in place of a source.
    """

    source: str
    destination: str
    readonly: bool = False
    subpath: str = ""
    recursive: bool = True
    deep: bool = True
    propagation: str = ""
    layers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Disk:
    """`format` is raw or qcow2."""

    path: str
    format: str = "raw"
    readonly: bool = False


@dataclass(frozen=True)
class MachinePlan:
    """`template` is the folder of a ready template (see `bothy.machines.templates`). `vcpus` and `memory` (bytes) are those
    of the template. `root` is the image's EROFS disk, `scratch` the overlay's upper disk (a file made at launch if it is
    missing).
    `attachments` are its network cards, in their order; the `link` of each is a tap that is made. `ephemeral`: the machine is
    removed when it has ended, so nothing need be on its disk by then. `visit`: its files are wanted, no program runs: what its main
    program would be is a visit, for the client that is attached at the start."""

    id: str
    spec: Spec
    template: str
    vcpus: int
    memory: int
    root: Disk
    scratch: Disk
    attachments: list[Attachment] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    cgroup: str = ""
    init: bool = False
    ephemeral: bool = False
    visit: bool = False
    secrets: list[SecretFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
