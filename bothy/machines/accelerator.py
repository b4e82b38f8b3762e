"""Which accelerator machines get: KVM only where a payload really runs in it, else software emulation. Found out once, then kept.

A `/dev/kvm` that opens is no proof: under nested virtualisation the firmware may run and a 64-bit kernel spin for ever. So a tiny
boot sector is run on the CPU that machines get; it goes to 64-bit mode, takes timer interrupts and says so, within a time limit.
The first template is the second opinion (see `disprove`).

    <root>/machines/accelerator.json    {name, reason, tsc, host}: asked again when the host's kernel, QEMU or /dev/kvm is another
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bothy.machines import payload, tsc
from bothy.paths import Paths

LIMIT = 3.0
_SAME = 10_000  # one part in so many: what two measurements of the same counter may differ by
_WORD = b"bothy64"
_QEMU = "qemu-system-x86_64"


@dataclass(frozen=True)
class Accelerator:
    """`name` is kvm or tcg (software emulation); `reason` says why, for people. `tsc`: this host's time stamp counter, in kHz."""

    name: str
    reason: str
    tsc: int = 0


def probe(paths: Paths, device: Path = Path("/dev/kvm"), *, limit: float = LIMIT) -> Accelerator:
    """The accelerator of this host. The first time takes up to `limit` seconds, later times one look at a file."""
    host = _host(device)
    kept = _read(paths)
    if kept is not None and kept[1] == host:
        return kept[0]
    frequency = tsc.measure()
    if kept is not None and abs(kept[0].tsc - frequency) * _SAME <= frequency:
        frequency = kept[0].tsc  # the same host after a reboot: its templates are still good
    found = replace(_probe(device, limit), tsc=frequency)
    _keep(paths, found, host)
    return found


def known(paths: Paths) -> Accelerator | None:
    """What was found out before, None if nobody has asked yet."""
    kept = _read(paths)
    return kept[0] if kept is not None else None


def disprove(paths: Paths, reason: str, device: Path = Path("/dev/kvm")) -> Accelerator:
    """KVM was found good, but a real machine did not come up in it: emulate from now on."""
    before = known(paths)
    found = Accelerator("tcg", reason, before.tsc if before is not None else tsc.measure())
    _keep(paths, found, _host(device))
    return found


def _host(device: Path) -> list[str]:
    """What the verdict depends on."""
    qemu = shutil.which(_QEMU)
    stamp = str(os.stat(qemu).st_mtime_ns) if qemu else ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [os.uname().release, os.uname().version, boot, stamp, str(device), str(device.exists())]


def _probe(device: Path, limit: float) -> Accelerator:
    if os.uname().machine != "x86_64":
        return Accelerator("tcg", f"no accelerator is known for {os.uname().machine}")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        return Accelerator("tcg", f"{device} can not be opened: {exc.strerror}")
    qemu = shutil.which(_QEMU)
    if qemu is None:
        return Accelerator("tcg", f"{_QEMU} is not installed")
    return _run_payload(qemu, limit)


def _run_payload(qemu: str, limit: float) -> Accelerator:
    disk = os.memfd_create("bothy-probe")  # no name: nothing to leave behind if we are killed meanwhile
    try:
        os.write(disk, payload.boot_sector())
        arguments = [
            "setpriv", "--pdeathsig", "KILL", qemu, "-machine", "pc,accel=kvm", "-cpu", "host", "-m", "16", "-nodefaults",
            "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
            "-drive", f"file=/proc/self/fd/{disk},format=raw,if=ide,file.locking=off",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
        ]  # fmt: skip
        done = subprocess.run(arguments, capture_output=True, stdin=subprocess.DEVNULL, timeout=limit, check=False, pass_fds=[disk])
    except subprocess.TimeoutExpired:
        return Accelerator("tcg", f"/dev/kvm opens, but a 64-bit payload did not finish in it within {limit:g} s")
    finally:
        os.close(disk)
    if _WORD in done.stdout:
        return Accelerator("kvm", "a 64-bit payload ran in it")
    words = done.stderr.decode(errors="replace").strip().splitlines()
    return Accelerator("tcg", f"/dev/kvm opens, but a 64-bit payload failed in it: {words[-1] if words else 'it said nothing'}")


def _file(paths: Paths) -> Path:
    return paths.machines / "accelerator.json"


def _read(paths: Paths) -> tuple[Accelerator, list[str]] | None:
    try:
        said = json.loads(_file(paths).read_bytes())
        return Accelerator(said["name"], said["reason"], said["tsc"]), said["host"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _keep(paths: Paths, found: Accelerator, host: list[str]) -> None:
    path = _file(paths)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps({**asdict(found), "host": host}))
    os.rename(unfinished, path)
