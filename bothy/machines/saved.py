"""What a template's folder says of itself: all that keepers need to know to start a clone of it. See `bothy.machines.templates`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from bothy.errors import NotFound
from bothy.jsonable import PLAIN
from bothy.machines.command import Hardware

DESCRIPTION = "template.json"

# For saving and for loading: the memory is not part of the state, it is in a file of its own.
CAPABILITY = {"capability": "x-ignore-shared", "state": True}


@dataclass(frozen=True)
class Template:
    """What is in template.json: all that a clone must have in common with its template. `nic`: the guest's number of its first
    network card. `memory`: the bytes of memory that are promised to
    programs, `free`: that there are for them.

    `disk`: the fingerprint of image disks that it need not mount (see `bothy.machines.rootdisk`).
    """

    key: str
    hardware: Hardware
    qemu: str
    created: float
    kernel_version: str = ""
    nic: int = 2
    memory: int = 0
    free: int = 0
    disk: str = ""


def read(folder: str | os.PathLike[str]) -> Template:
    """What a template's folder says of itself. Raises NotFound, ValueError."""
    try:
        with open(os.path.join(folder, DESCRIPTION), "rb") as file:
            return PLAIN.loads(Template, file.read())
    except FileNotFoundError:
        raise NotFound(f"no template in {folder}") from None
