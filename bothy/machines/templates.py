"""Templates: machines that were booted once, up to where the agent waits for its orders, and saved. Clones go on from there.

    <root>/machines/templates/
    ├── .lock-<key>             held while that template is made
    ├── .new-<key>-XXXX/        one that is being made, or was when its maker was killed: removed by the next maker
    └── <key>/
        ├── ram                 the guest's memory, mapped copy-on-write by every clone
        ├── state               the devices' state, without the memory
        ├── scratch             the scratch disk that the saved guest has mounted
        └── template.json       `Template`, written last

The key is a hash of everything that matters: boot files, command line of the kernel, machine type, CPU, number of vCPUs, memory,
the devices, and QEMU itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bothy.errors import Broken, Conflict, NotFound, Unavailable
from bothy.jsonable import PLAIN
from bothy.linux import channel, links
from bothy.machines import accelerator, bootfiles, command, disks, mkfs, qmp, rootdisk, saved, wire
from bothy.machines.accelerator import Accelerator
from bothy.machines.bootfiles import BootFiles
from bothy.machines.command import Backing, Hardware
from bothy.machines.saved import Template
from bothy.paths import Paths

MIB = 1024 * 1024
QEMU = "qemu-system-x86_64"
_CLASSES = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
_BOOT_LIMIT = {"tcg": 90.0, "kvm": 15.0}  # seconds; under emulation it is some four on an idle host, in KVM less than one
_BOOT_SPEED = 2048  # MiB of memory that a kernel at least gets to know in a second
_BASE = 160  # MiB that a template takes on disk, whatever its memory
_FORMAT = 3  # raised when clones of older templates would not understand their keeper

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Usage:
    """One template for people. Sizes in bytes on disk, times in seconds since 1970."""

    key: str
    accelerator: str
    vcpus: int
    memory: int
    kernel: str
    size: int
    created: float
    used: float
    current: bool


def memory_class(memory: int) -> int:
    """The bytes of memory that programs get in a machine for which `memory` is asked: the next size that templates are made in.

    The machine itself has more (see `kernel_share`): what runs in a container of so many bytes shall run in a machine of so many.
    """
    wanted = max(1, -(-memory // MIB))
    for size in _CLASSES:
        if wanted <= size:
            return size * MIB
    return -(-wanted // 2048) * 2048 * MIB


def kernel_share(memory: int) -> int:
    """The bytes of memory that a machine's kernel and the agent take, beside so many for programs (found by measuring)."""
    return 112 * MIB + memory // 12 // MIB * MIB


class Templates:
    """The templates below one state root. All methods block (making one: seconds) and may be called from any thread or process."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._folder = paths.machines / "templates"

    def key(self, vcpus: int, memory: int) -> str:
        """The key of the template for such a machine, as things are now. Raises as `ensure`."""
        return self._describe(vcpus, memory, lambda _: None).key

    def ensure(self, vcpus: int, memory: int, progress: Progress = lambda _: None) -> Path:
        """The folder of a ready template for a machine of so many vCPUs and (at least) so many bytes of memory; made if need be.

        `progress` is told in words what is being done. Raises Unavailable (no QEMU, no kernel), Broken (it did not boot), OSError;
        then nothing is left.
        """
        try:
            return self._ensure(vcpus, memory, progress)
        except Broken as exc:
            # The probe's payload is small; the first real machine is the second opinion.
            before = accelerator.known(self._paths)
            if before is None or before.name != "kvm":
                raise
            accelerator.disprove(self._paths, f"a machine did not come up in KVM: {exc.message}")
            return self._ensure(vcpus, memory, progress)

    def _ensure(self, vcpus: int, memory: int, progress: Progress) -> Path:
        template = self._describe(vcpus, memory, progress)
        folder = self._folder / template.key
        if not (folder / saved.DESCRIPTION).exists():
            with bootfiles.locked(self._folder / f".lock-{template.key}"):
                if not (folder / saved.DESCRIPTION).exists():
                    self._make(template, folder, progress)
        os.utime(folder)
        return folder

    def list(self) -> list[Usage]:
        """All templates, the one used last first."""
        found = [usage for folder in self._all() if (usage := self._usage(folder)) is not None]
        return sorted(found, key=lambda usage: usage.used, reverse=True)

    def remove(self, key: str) -> int:
        """Remove a template by its key (or a unique beginning of it); bytes freed. Running clones keep what they have mapped.

        Raises NotFound, Conflict (the beginning is not unique).
        """
        matching = [folder for folder in self._all() if folder.name.startswith(key)] if key else []
        if not matching:
            raise NotFound(f"no machine template {key!r}", hint="see: bothy machine template ls")
        if len(matching) > 1:
            raise Conflict(f"{key!r} is the beginning of several machine templates")
        return self._remove(matching[0])

    def prune(self) -> tuple[Sequence[str], int]:
        """Remove templates whose inputs have changed, and leftovers. Returns the keys, and the bytes freed."""
        removed, freed = [], 0
        for usage in self.list():
            if not usage.current:
                freed += self._remove(self._folder / usage.key)
                removed.append(usage.key)
        for folder in self._folder.glob(".new-*"):
            key = folder.name.split("-")[1]
            with bootfiles.locked(self._folder / f".lock-{key}"):
                shutil.rmtree(folder, ignore_errors=True)
        bootfiles.prune(self._paths)
        return removed, freed

    def _all(self) -> Iterator[Path]:
        if self._folder.is_dir():
            yield from (folder for folder in self._folder.iterdir() if not folder.name.startswith("."))

    def _usage(self, folder: Path) -> Usage | None:
        try:
            template = saved.read(folder)
            size = sum(entry.stat().st_blocks * 512 for entry in os.scandir(folder))
            used = folder.stat().st_mtime
        except (NotFound, ValueError, FileNotFoundError):
            return None
        hardware = template.hardware
        return Usage(
            key=template.key, accelerator=hardware.accelerator, vcpus=hardware.vcpus, memory=template.memory,
            kernel=template.kernel_version, size=size, created=template.created, used=used, current=self._is_current(template),
        )  # fmt: skip

    def _is_current(self, template: Template) -> bool:
        """Whether a machine of this size would get this template now."""
        found = bootfiles.current(self._paths.machines / "boot")
        chosen = accelerator.known(self._paths)
        if found is None or chosen is None:
            return False
        hardware = _hardware(chosen, template.hardware.vcpus, template.hardware.memory, found)
        try:
            return _key(hardware, found) == template.key
        except Unavailable:
            return False

    def _remove(self, folder: Path) -> int:
        size = sum(entry.stat().st_blocks * 512 for entry in os.scandir(folder))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / saved.DESCRIPTION)
        shutil.rmtree(folder, ignore_errors=True)
        return size

    def _describe(self, vcpus: int, memory: int, progress: Progress) -> Template:
        binary()
        chosen = accelerator.probe(self._paths)
        boot = bootfiles.ensure(self._paths, progress)
        memory = memory_class(memory)
        hardware = _hardware(chosen, vcpus, (memory + kernel_share(memory)) // MIB, boot)
        return Template(_key(hardware, boot), hardware, binary(), time.time(), boot.version, memory=memory)

    def _make(self, template: Template, folder: Path, progress: Progress) -> None:
        """Boot and save, in a folder that gets its name at the end."""
        for leftover in self._folder.glob(f".new-{template.key}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".new-{template.key}-", dir=self._folder) as temporary:
            unfinished = Path(temporary, "new")
            unfinished.mkdir(mode=0o700)
            hardware = template.hardware
            size = f"{hardware.vcpus} vCPU, {template.memory // MIB} MiB, {hardware.accelerator}"
            check_room(unfinished, hardware.memory, size)
            progress(f"making a machine template ({size}); this is done once")
            mkfs.make_pristine(str(unfinished / "scratch"))
            mkfs.make_empty_image(str(unfinished / "image"))
            ready = _boot_and_save(template, unfinished, progress)
            with (unfinished / "image").open("rb") as image:
                fingerprint = rootdisk.fingerprint(image.fileno())
            (unfinished / "image").unlink()
            template = replace(template, nic=int(ready["nic"]), free=int(ready["free"]), disk=fingerprint)
            (unfinished / saved.DESCRIPTION).write_text(PLAIN.dumps(template))
            os.rename(unfinished, folder)


def check_room(folder: Path, memory: int, size: str) -> None:
    """Whether a template of so many MiB fits on the disk, as far as one can know: a guest's kernel writes 64 bytes about each page
    that it has. On a full disk QEMU would be killed in the middle (SIGBUS). Raises Unavailable."""
    wanted = memory // 64 + _BASE
    free = shutil.disk_usage(folder).free // MIB
    if free < wanted:
        raise Unavailable(
            f"the machine template ({size}) takes {wanted} MiB of disk, {free} MiB are free below {folder.parent.parent}",
            hint="make some room, or give the machine less with --memory",
        )


def binary() -> str:
    """QEMU's path. Raises Unavailable."""
    found = shutil.which(QEMU)
    if found is None:
        raise Unavailable(f"{QEMU} is not installed", hint="install the package qemu-system-x86")
    return found


def _hardware(chosen: Accelerator, vcpus: int, memory: int, boot: BootFiles) -> Hardware:
    return Hardware(chosen.name, vcpus, memory, str(boot.kernel), str(boot.initramfs), chosen.tsc)


def _key(hardware: Hardware, boot: BootFiles) -> str:
    status = os.stat(binary())
    neutral = replace(hardware, kernel="", initramfs="")
    shape = command.argv(neutral, Backing(ram="", agent=0, monitor=0, taps=(0,) * hardware.cards, shared=True))
    inputs = [_FORMAT, boot.digest, shape, mkfs.mkfs_command(""), disks.SIZE, binary(), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def _boot_and_save(template: Template, folder: Path, progress: Progress) -> dict[str, Any]:
    """Run QEMU until its agent is ready, save, end it. Returns what the agent said.

    Raises Broken with the guest's last words. QEMU is gone in any case.
    """
    agent, its_agent = socket.socketpair()
    monitor, its_monitor = socket.socketpair()
    taps = tuple(links.open_tap("bothy-new%d") for _ in range(template.hardware.cards))
    console = folder / "console"
    (folder / "exports").mkdir()
    backing = Backing(
        ram=str(folder / "ram"),
        agent=its_agent.fileno(),
        monitor=its_monitor.fileno(),
        root=command.disk(str(folder / "image"), readonly=True),
        scratch=command.disk(str(folder / "scratch")),
        used=command.nothing(disks.SIZE),
        taps=taps,
        exports=str(folder / "exports"),
        console=str(console),
        shared=True,
    )
    arguments = command.argv(template.hardware, backing, template.qemu)
    # setpriv: QEMU goes with us, whatever becomes of us, and no code of ours runs between fork and exec in a process with threads.
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *arguments],
        pass_fds=(its_agent.fileno(), its_monitor.fileno(), *taps), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        with agent, monitor:
            for end in (its_agent, its_monitor):
                end.close()
            channel.close_all(taps)
            ready = _await_ready(agent, _BOOT_LIMIT[template.hardware.accelerator] + template.hardware.memory / _BOOT_SPEED)
            progress("saving the machine template")
            _save(qmp.Client(monitor), folder)
    except (OSError, wire.WireError) as exc:
        process.kill()
        words = (process.stderr.read() if process.stderr else b"").decode(errors="replace").strip()
        seen = console.read_text(errors="replace").strip()[-2000:] if console.exists() else ""
        raise Broken(
            f"the machine template did not come up: {words.splitlines()[-1] if words else exc}",
            hint=f"its console said last: {seen}" if seen else f"the command was: {command.describe(arguments)}",
        ) from exc
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
    console.unlink(missing_ok=True)
    (folder / "exports").rmdir()
    return ready


def _await_ready(agent: socket.socket, limit: float) -> dict[str, Any]:
    """The agent's message that it is ready."""
    decoder = wire.Decoder()
    deadline = time.monotonic() + limit
    while True:
        agent.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = agent.recv(65536)
        except TimeoutError:
            raise TimeoutError(f"no sign of life from its agent in {limit:.0f} seconds") from None
        if not data:
            raise ConnectionResetError("QEMU has ended")
        for frame in decoder.feed(data):
            message = wire.message_of(frame) if frame.kind == wire.MESSAGE else {}
            if message.get("event") == "ready":
                return message


def _save(monitor: qmp.Client, folder: Path) -> None:
    """Stop the guest and write its devices' state; the memory is in its file already."""
    state = os.open(folder / "state", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        monitor("stop")
        monitor("migrate-set-capabilities", capabilities=[saved.CAPABILITY, {"capability": "events", "state": True}])
        monitor.pass_fd("getfd", state, fdname="state")
        monitor("migrate", uri="fd:state")
        while True:
            status = monitor.event("MIGRATION").data.get("status")
            if status == "completed":
                break
            if status in ("failed", "cancelled"):
                raise qmp.QmpError(f"saving the state {status}")
        monitor("quit")
    finally:
        os.close(state)
