"""QEMU's command line, as data: what a machine is made of (the same for a template and its clones), and what stands behind it.

    Hardware   machine type, CPU, vCPUs, memory, kernel, initramfs, command line      goes into the template's key
    Backing    RAM file, disks, network, agent, monitor, console, shares              differs from start to start

One builder a concern, each gives a piece of argv. Device topology must be the same in template and clone: QEMU refuses a state
that does not fit, except for what it does not notice (the number of vCPUs), which is why all of `Hardware` is in the key.

The machine is `microvm`: virtio over MMIO, no PCI, and the quickest both to come up and to load a state (measured: a program in a
clone takes 269 ms, against 290 with pc, 291 with q35 and 286 with microvm and PCIe).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bothy.machines.wire import CARDS, card_mac

MACHINE = "microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,x-option-roms=off"
TAG = "host"  # the 9p file system's name in the guest
PORT = "bothy"  # the agent's virtio-serial port
_BUFFER = 128  # MiB of translated code at most (emulation only); QEMU's own default is 1024
_CMDLINE = (
    "quiet panic=-1 reboot=t console=ttyS0 tsc=reliable no_timer_check nowatchdog audit=0 lsm= "
    "random.trust_cpu=on rcupdate.rcu_expedited=1 init_on_alloc=0 cryptomgr.notests psi=0"
)
_CMDLINE_EMULATED = "mitigations=off nokaslr"  # nothing speculates in an emulated CPU; what guards against it only costs


@dataclass(frozen=True)
class Hardware:
    """What the guest finds. `memory` in MiB. `kernel` and `initramfs` are files. `tsc`: see `bothy.machines.tsc`.

    `cards` is the number of network cards.
    """

    accelerator: str
    vcpus: int
    memory: int
    kernel: str
    initramfs: str
    tsc: int = 0
    machine: str = MACHINE
    cards: int = CARDS

    @property
    def cpu(self) -> str:
        return "host" if self.accelerator == "kvm" else "max"

    @property
    def cmdline(self) -> str:
        if self.accelerator == "kvm":
            return _CMDLINE
        clock = f" tsc_early_khz={self.tsc}" if self.tsc else ""
        return f"{_CMDLINE} {_CMDLINE_EMULATED}{clock}"


@dataclass(frozen=True)
class Backing:
    """What stands behind the devices. Disks as QEMU's blockdev objects; numbers are descriptors that QEMU inherits.

    The machine's own disk is `scratch` in its first life and `used` in the others (see `bothy.machines.disks`).

    `taps`: one for each network card. `files` are open disks, which QEMU finds as /dev/fdset/1, /dev/fdset/2 and so on.
    `shared`: writes of the guest go to the RAM file (the template itself); else they are private to the process. `sandbox`: put
    QEMU's own filter on it (clones have another one already). `reserve`: the kernel is asked whether there is so much memory
    before a private copy of it is promised (mmap(2), MAP_NORESERVE).
    """

    ram: str
    agent: int
    monitor: int
    root: Mapping[str, Any] = field(default_factory=dict)
    scratch: Mapping[str, Any] = field(default_factory=dict)
    used: Mapping[str, Any] = field(default_factory=dict)
    taps: tuple[int, ...] = ()
    exports: str = "/"
    console: str = ""
    shared: bool = False
    files: tuple[int, ...] = ()
    sandbox: bool = True
    reserve: bool = True


def argv(hardware: Hardware, backing: Backing, binary: str = "qemu-system-x86_64") -> list[str]:
    """The whole command line. A clone (not `shared`) waits for a state to come in."""
    return [
        binary,
        *_general(hardware, backing),
        *_processor(hardware),
        *_memory(hardware, backing),
        *_boot(hardware, backing),
        *_channels(backing),
        *_files(backing),
        *_disks(backing),
        *_shares(backing),
        *_network(hardware, backing),
        *_balloon(),
    ]


def describe(arguments: list[str]) -> str:
    """A line that can be pasted into a shell."""
    return shlex.join(arguments)


def disk(path: str, *, readonly: bool = False, image_format: str = "raw") -> dict[str, Any]:
    """The blockdev object of an image file. Not locked by QEMU: read-only ones are shared, writable ones belong to one machine."""
    file = {"driver": "file", "filename": path, "locking": "off", "aio": "threads", "discard": "unmap", "read-only": readonly}
    return {"driver": image_format, "read-only": readonly, "discard": "unmap", "file": file}


def nothing(size: int) -> dict[str, Any]:
    """The blockdev object of a disk of so many bytes that forgets what is written to it."""
    return {"driver": "null-co", "size": size, "read-zeroes": True}


def _general(hardware: Hardware, backing: Backing) -> list[str]:
    machine = [
        "-machine",
        f"{hardware.machine},memory-backend=ram",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
    ]
    # The template is stopped while it is saved; its clones shall run.
    state = ["-global", "migration.store-global-state=off"]
    sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    return [
        *machine,
        *state,
        *(["-sandbox", sandbox] if backing.sandbox else []),
        *([] if backing.shared else ["-incoming", "defer"]),
    ]


def _processor(hardware: Hardware) -> list[str]:
    accelerator = "kvm" if hardware.accelerator == "kvm" else f"tcg,thread=multi,tb-size={_BUFFER}"
    return ["-accel", accelerator, "-cpu", hardware.cpu, "-smp", str(hardware.vcpus)]


def _memory(hardware: Hardware, backing: Backing) -> list[str]:
    share = "on" if backing.shared else "off"
    ram = f"memory-backend-file,id=ram,size={hardware.memory}M,mem-path={_comma(backing.ram)},share={share}"
    return ["-m", str(hardware.memory), "-object", ram if backing.reserve else f"{ram},reserve=off"]


def _boot(hardware: Hardware, backing: Backing) -> list[str]:
    if not backing.shared:
        return []  # a clone has its kernel in memory already
    return ["-kernel", hardware.kernel, "-initrd", hardware.initramfs, "-append", hardware.cmdline]


def _channels(backing: Backing) -> list[str]:
    console = f"file,id=console,path={_comma(backing.console)}" if backing.console else "ringbuf,id=console,size=65536"
    return [
        "-chardev", f"socket,id=monitor,fd={backing.monitor}", "-mon", "chardev=monitor,mode=control",
        "-chardev", console, "-serial", "chardev:console",
        "-chardev", f"socket,id=agent,fd={backing.agent}",
        "-device", "virtio-serial-device,max_ports=2", "-device", f"virtserialport,chardev=agent,name={PORT}",
    ]  # fmt: skip


def _files(backing: Backing) -> list[str]:
    return [word for number, fd in enumerate(backing.files, 1) for word in ("-add-fd", f"fd={fd},set={number}")]


def _disks(backing: Backing) -> list[str]:
    arguments = []
    for name, node in (("root", backing.root), ("scratch", backing.scratch), ("used", backing.used)):
        arguments += ["-blockdev", json.dumps({**node, "node-name": name}), "-device", f"virtio-blk-device,drive={name}"]
    return arguments


def _shares(backing: Backing) -> list[str]:
    export = f"local,id=shares,path={_comma(backing.exports)},security_model=passthrough,multidevs=remap"
    return ["-fsdev", export, "-device", f"virtio-9p-device,fsdev=shares,mount_tag={TAG}"]


def _network(hardware: Hardware, backing: Backing) -> list[str]:
    words = []
    for card, tap in zip(range(hardware.cards), backing.taps, strict=True):
        # The guest need not tell its neighbours that it has moved: its address is set after it was loaded.
        device = f"virtio-net-device,netdev=network{card},mac={card_mac(card)},guest_announce=off"
        words += ["-netdev", f"tap,id=network{card},fd={tap}", "-device", device]
    return words


def _balloon() -> list[str]:
    return ["-device", "virtio-balloon-device,free-page-reporting=on"]


def _comma(path: str) -> str:
    """A path inside an option list: a comma is doubled."""
    return path.replace(",", ",,")
