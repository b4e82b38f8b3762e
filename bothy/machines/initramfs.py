"""The guest's first root: Python, the agent and what both need, as one uncompressed cpio archive.

    /init                      a script of one line for the interpreter: imports the agent and runs it
    /usr/bin/python3           the interpreter that this host runs, with the shared libraries it is linked to
    /usr/lib/python3.N/        the modules that the agent imports, nothing else, as bytecode; bothy's own among them
    /lib/modules/NN-name.ko    the kernel's modules in the order in which they are to be loaded
    /dev/console               so that PID 1 has an output before devtmpfs is there
    /root, /dev, /proc, …      mount points

Which modules the agent imports is found by importing it in a fresh interpreter of the same kind. The archive is a function of the
files that go into it: same files, same bytes, so that its hash can be part of a template's key. It is not compressed, as
unpacking is very slow under emulation.

Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst (newc).
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bothy.errors import Broken, Unsupported
from bothy.machines import kernel as kernels
from bothy.machines.kernel import Kernel
from bothy.machines.wire import REHEARSAL

AGENT = "bothy.guest.agent"
_PACKAGES = Path(__file__).resolve().parents[2]  # the folder that bothy is imported from
_LIBRARY = f"usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"  # where the interpreter looks by itself
_INIT = b"#!/usr/bin/python3 -ISB\nfrom bothy.guest.agent import main\nmain()\n"
_FOLDERS = ("dev", "proc", "sys", "run", "root", "disk", "host")

_LIST_MODULES = """
import sys
sys.path[:0] = [{packages!r}]
sys.dont_write_bytecode = True
import {agent}
import json
found = {{}}
for name, module in sorted(sys.modules.items()):
    path = getattr(module, '__file__', None) or getattr(getattr(module, '__spec__', None), 'origin', None)
    if path and path not in ('built-in', 'frozen') and name != '__main__':
        found[name] = path
print(json.dumps(found))
"""


@dataclass
class Archive:
    """A newc archive in the making; entries come out in the order of their names' folders, whatever order they came in."""

    entries: dict[str, tuple[int, bytes, int, int]] = field(default_factory=dict)

    def folder(self, path: str) -> None:
        """A folder and those above it."""
        path = path.strip("/")
        while path:
            self.entries.setdefault(path, (stat.S_IFDIR | 0o755, b"", 0, 0))
            path = path.rpartition("/")[0]

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self.folder(path.strip("/").rpartition("/")[0])
        self.entries[path.strip("/")] = (stat.S_IFREG | mode, data, 0, 0)

    def link(self, path: str, target: str) -> None:
        self.folder(path.strip("/").rpartition("/")[0])
        self.entries[path.strip("/")] = (stat.S_IFLNK | 0o777, target.encode(), 0, 0)

    def device(self, path: str, major: int, minor: int) -> None:
        """A character device."""
        self.folder(path.strip("/").rpartition("/")[0])
        self.entries[path.strip("/")] = (stat.S_IFCHR | 0o600, b"", major, minor)

    def pack(self) -> bytes:
        """The archive's bytes: owners 0, times 0, inode numbers counted."""
        out = bytearray()
        for inode, name in enumerate(sorted(self.entries), 1):
            _append(out, inode, name, *self.entries[name])
        _append(out, 0, "TRAILER!!!", 0, b"", 0, 0)
        out += bytes(-len(out) % 512)
        return bytes(out)


def _append(out: bytearray, inode: int, name: str, mode: int, data: bytes, major: int, minor: int) -> None:
    raw = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    numbers = (inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(raw), 0)
    out += b"070701" + b"".join(b"%08X" % number for number in numbers) + raw
    out += bytes(-len(out) % 4)
    out += data
    out += bytes(-len(out) % 4)


@dataclass(frozen=True)
class Initramfs:
    """The archive and every file of the host that went into it."""

    data: bytes
    inputs: list[Path]


def build(kernel: Kernel, agent: str = AGENT) -> Initramfs:
    """The archive for a kernel; `agent` is the module whose `main` is PID 1.

    Raises Unsupported for a kernel without the modules that machines need, Broken if the agent can not be imported.
    """
    archive = Archive()
    for name in (*_FOLDERS, f"{_LIBRARY}/lib-dynload"):
        archive.folder(name)
    archive.device("dev/console", 5, 1)
    archive.file("init", _INIT.replace(AGENT.encode(), agent.encode()), 0o755)
    archive.file(REHEARSAL, exiting_program(), 0o755)
    inputs = _add_python(archive, agent)
    for number, path in enumerate(kernels.load_order(kernel, kernels.MODULES)):
        archive.file(f"lib/modules/{number:02}-{path.name.partition('.')[0]}.ko", kernels.module_data(path))
        inputs.append(path)
    return Initramfs(archive.pack(), inputs)


def exiting_program() -> bytes:
    """A static ELF for x86-64 that exits with 0: `xor edi, edi; mov eax, SYS_exit; syscall`. Format: elf(5)."""
    code = bytes.fromhex("31ff b83c000000 0f05")
    base, header = 0x400000, 64 + 56
    size = header + len(code)
    start = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 2, 62, 1, base + header, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return start + segment + code


def interpreter() -> Path:
    """The real interpreter behind the one that runs (not the virtual environment's link to it)."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Path(os.path.realpath(base))


def _add_python(archive: Archive, agent: str) -> list[Path]:
    """The interpreter, its libraries and the agent's modules. Returns the host's files."""
    python = interpreter()
    archive.file("usr/bin/python3", python.read_bytes(), 0o755)
    inputs, objects = [python], [python]
    for name, origin in _modules_of(python, agent).items():
        path = Path(origin)
        inputs.append(path)
        if path.suffix == ".so":
            archive.file(f"{_LIBRARY}/{name.replace('.', '/')}.so", path.read_bytes(), 0o755)
            objects.append(path)
        else:
            is_package = path.name == "__init__.py"
            target = name.replace(".", "/") + ("/__init__" if is_package else "")
            archive.file(f"{_LIBRARY}/{target}.pyc", _bytecode(path, target))
    for place, library in sorted(_libraries(objects).items()):
        archive.file(place, library.read_bytes(), 0o755)
        inputs.append(library)
    return inputs


def _modules_of(python: Path, agent: str) -> dict[str, str]:
    """Name and file of every module that importing the agent loads."""
    program = _LIST_MODULES.format(packages=str(_PACKAGES), agent=agent)
    done = subprocess.run([python, "-ISBc", program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Broken(f"the agent can not be imported by {python}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _bytecode(path: Path, target: str) -> bytes:
    """A module compiled as a .pyc that is taken without a look at its source; the same for the same source (PEP 552)."""
    code = compile(path.read_bytes(), f"/{_LIBRARY}/{target}.py", "exec", dont_inherit=True, optimize=2)
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
    return header + marshal.dumps(code)


def _libraries(objects: Iterable[Path]) -> dict[str, Path]:
    """Where each shared library must be in the guest (soname resolved as the host's loader does), and the file that it is."""
    found: dict[str, Path] = {}
    for path in objects:
        done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
        if "not found" in done.stdout:
            raise Unsupported(f"{path} lacks a shared library: {done.stdout.strip()}")
        for place in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", done.stdout, re.MULTILINE):
            found[place] = Path(os.path.realpath(place))
    return found
