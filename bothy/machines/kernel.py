"""The guest's kernel: found on this host, or unpacked from a Debian package below the state root.

    <root>/machines/kernels/<any folder>/boot/vmlinuz-VERSION     as `dpkg -x linux-image-VERSION.deb FOLDER` leaves it
                                        /lib/modules/VERSION/
    /usr/local/lib/bothy/kernels/<any folder>/…                   the same, for every engine of this host
    /boot/vmlinuz-VERSION, /lib/modules/VERSION                   as an installed kernel package leaves it

Folders of the state root win over the host, newer versions over older ones, and only a kernel that has all the modules a machine
needs is taken (Debian's cloud kernels have no 9p). A bzImage holds its kernel compressed, and unpacking it inside a machine is slow
under emulation: where the compression is one that the standard library knows, the ELF inside is booted instead (by its PVH note).

Module dependencies are read from the modules themselves (`.modinfo`), as an unpacked package has no `modules.dep`.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bothy.errors import Unavailable, Unsupported
from bothy.paths import Paths

PACKAGE = "linux-image-amd64"
SHARED = Path("/usr/local/lib/bothy/kernels")

# What a machine's devices and file systems need, in the order in which the guest loads them (dependencies are put before).
MODULES = (
    "virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "virtio_balloon", "9pnet_virtio", "9p",
    "crc32c_generic", "erofs", "ext4", "overlay",
)  # fmt: skip

_VERSION_PARTS = re.compile(r"\d+|\D+")
_COMPRESSED = {b"\xfd7zXZ\x00": ".xz", b"\x1f\x8b\x08": ".gz"}


@dataclass(frozen=True)
class Kernel:
    """A kernel image and its folder of modules."""

    version: str
    image: Path
    modules: Path


def find(paths: Paths, host: Path = Path("/")) -> Kernel:
    """The kernel that machines boot. Raises Unavailable, with a hint that names the package, if there is none that can do it."""
    rejected = []
    for kernel in _candidates(paths, host):
        lacking = missing_modules(kernel, MODULES)
        if not lacking:
            return kernel
        rejected.append(f"{kernel.image} lacks {', '.join(lacking)}")
    reason = f": {'; '.join(rejected)}" if rejected else f" in {paths.machines / 'kernels'}, {SHARED} or {host / 'boot'}"
    raise Unavailable(
        f"no kernel for machines{reason}",
        hint=f"install the package {PACKAGE}, or unpack it for machines alone with: python -m bothy.machines.fetch",
    )


def _candidates(paths: Paths, host: Path) -> list[Kernel]:
    found: list[Kernel] = []
    for places in (_folders(paths.machines / "kernels"), _folders(host / SHARED.relative_to("/")), [host]):
        here = [kernel for root in places for kernel in kernels_below(root)]
        found += sorted(here, key=lambda kernel: version_key(kernel.version), reverse=True)
    return found


def _folders(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.is_dir() else []


def kernels_below(root: Path) -> Iterable[Kernel]:
    for image in root.glob("boot/vmlinuz-*"):
        version = image.name.removeprefix("vmlinuz-")
        modules = next((d for d in (root / "lib/modules" / version, root / "usr/lib/modules" / version) if d.is_dir()), None)
        if modules and image.is_file():
            yield Kernel(version, image, modules)


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `6.1.0-9` before `6.1.0-10`."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in _VERSION_PARTS.findall(version))


def module_files(kernel: Kernel) -> dict[str, Path]:
    """Every module of the kernel by name (dashes as underscores, as the kernel itself takes them)."""
    found = {}
    for folder, _, names in os.walk(kernel.modules / "kernel"):
        for name in names:
            stem, dot, _ = name.partition(".ko")
            if dot:
                found[stem.replace("-", "_")] = Path(folder, name)
    return found


def missing_modules(kernel: Kernel, wanted: Iterable[str]) -> list[str]:
    """Those of `wanted` that are neither module files nor built in."""
    files = module_files(kernel)
    built_in = _built_in(kernel)
    return [name for name in wanted if name not in files and name not in built_in]


def _built_in(kernel: Kernel) -> set[str]:
    try:
        lines = (kernel.modules / "modules.builtin").read_text().split()
    except FileNotFoundError:
        return set()
    return {Path(line).name.partition(".ko")[0].replace("-", "_") for line in lines}


def load_order(kernel: Kernel, wanted: Iterable[str]) -> list[Path]:
    """The module files to load for `wanted`, each after those it depends on. Raises Unsupported for one that is not there."""
    files, built_in = module_files(kernel), _built_in(kernel)
    ordered: dict[str, Path] = {}

    def visit(name: str) -> None:
        if name in ordered or name in built_in:
            return
        if name not in files:
            raise Unsupported(f"kernel {kernel.version} has no module {name}", hint=f"install the package {PACKAGE}")
        for dependency in dependencies(module_data(files[name])):
            visit(dependency)
        ordered[name] = files[name]

    for name in wanted:
        visit(name)
    return list(ordered.values())


def module_data(path: Path) -> bytes:
    """A module as the kernel loads it, decompressed. Raises Unsupported for a compression that the standard library has not."""
    data = path.read_bytes()
    if path.name.endswith(".ko"):
        return data
    return _decompress(data, path)


def _decompress(data: bytes, path: Path) -> bytes:
    if data.startswith(b"\xfd7zXZ\x00"):
        return lzma.decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    raise Unsupported(f"{path}: compressed in a way that is not known", hint=f"use the kernel of {PACKAGE}")


def dependencies(module: bytes) -> list[str]:
    """The names that a module's `.modinfo` gives as `depends`."""
    found = re.search(rb"\x00depends=([^\x00]*)\x00", module)
    names = found.group(1).decode().split(",") if found else []
    return [name.replace("-", "_") for name in names if name]


def elf_of(image: bytes) -> bytes | None:
    """The ELF kernel inside a bzImage, or None if it can not be got out (then the bzImage itself boots, slower).

    Source: Documentation/x86/boot.rst (setup_sects, payload_offset, payload_length) of the kernel.
    """
    if image.startswith(b"\x7fELF"):
        return image
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        return None
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[(setup_sectors + 1) * 512 + offset :][:length]
    try:
        if payload.startswith(b"\xfd7zXZ\x00"):
            elf = lzma.LZMADecompressor().decompress(payload)  # not lzma.decompress: four bytes of size follow the stream
        elif payload.startswith(b"\x1f\x8b"):
            elf = gzip.decompress(payload[:-4])
        else:
            return None
    except (lzma.LZMAError, OSError, EOFError):
        return None
    return elf if elf.startswith(b"\x7fELF") else None


def has_pvh_note(elf: bytes) -> bool:
    """Whether a 64-bit ELF kernel can be started directly: a note of type 18 (XEN_ELFNOTE_PHYS32_ENTRY) by Xen."""
    offset, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
    for number in range(count):
        kind, _, at, _, _, length = struct.unpack_from("<IIQQQQ", elf, offset + number * size)
        if kind == 4:
            notes = elf[at : at + length]
            return notes.find(struct.pack("<II", 8, 18) + b"Xen\0") >= 0 or notes.find(struct.pack("<II", 4, 18) + b"Xen\0") >= 0
    return False
