"""Platforms of images: `linux/amd64`, `linux/arm64/v8`, and which of several is ours.

Source: opencontainers/image-spec v1.1, image-index.md; names are Go's GOOS and GOARCH.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
}
_SYSTEMS = ("linux", "windows", "darwin", "freebsd")
_IMPLIED_VARIANT = {"arm64": "v8", "arm": "v7"}


@dataclass(frozen=True)
class Platform:
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = field(default="", metadata={"json": "os.version"})

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def matches(self, wanted: Platform) -> bool:
        """Whether an image for this platform is what was wanted; `arm64` and `arm64/v8` are the same."""
        return (self.os, self.architecture, self.exact_variant) == (wanted.os, wanted.architecture, wanted.exact_variant)

    def serves(self, wanted: Platform) -> bool:
        """Whether what was made for this platform runs where `wanted` is: `amd64` runs on `amd64/v3` too."""
        return self.matches(wanted) or (not self.variant and (self.os, self.architecture) == (wanted.os, wanted.architecture))

    @property
    def exact_variant(self) -> str:
        return self.variant or _IMPLIED_VARIANT.get(self.architecture, "")


def host() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform(architecture, "linux", variant)


def parse(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64`, an architecture alone, or a system alone (of our architecture). Raises ValueError."""
    parts = text.lower().split("/")
    if not all(parts) or len(parts) > 3:
        raise ValueError(f"invalid platform {text!r}")
    if len(parts) == 1:
        parts = [parts[0], host().architecture] if parts[0] in _SYSTEMS else ["linux", parts[0]]
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    return Platform(names.get(parts[1], parts[1]), parts[0], parts[2] if len(parts) == 3 else "")
