"""A minimal Debian by mmdebstrap, from the archive that the host's apt is configured for.

mmdebstrap mounts things and starts maintainer scripts, so it runs as the init of a pid namespace, in a mount namespace of its own,
and dies with this process: what it mounts and starts goes with it, whatever happens. What it writes is in a folder of the
store's tmp/.

    setpriv --pdeathsig KILL ─▶ unshare --mount --pid --fork --kill-child ─▶ mmdebstrap ─▶ rootfs.tar
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from bothy.errors import Broken, Invalid, NotFound, Unavailable
from bothy.images import aptsources

_SUITE = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?")
_VERSIONS = {"10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}
_SHOWN = re.compile(r"I: ((?:running apt-get|downloading|extracting|installing|creating).*)")
_PASSED_ON = (
    "Acquire::http",
    "Acquire::https",
    "Acquire::ftp",
    "Acquire::Check-",
    "Acquire::Allow",
    "Acquire::Retries",
    "Acquire::ForceIP",
)
ERROR_LINES = 12


def suite_of(tag: str) -> str:
    """The suite that `debian:<tag>` means; without a tag the host's own release. Raises Invalid."""
    if not tag:
        tag = _host_release()
    suite = _VERSIONS.get(tag, tag)
    if not _SUITE.fullmatch(suite):
        raise Invalid(f"invalid Debian suite {tag!r}")
    return suite


def _host_release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    return "stable"


def command(suite: str, target: str, entries: Sequence[aptsources.Entry], include: Sequence[str], options: str) -> list[str]:
    """mmdebstrap's command line. `options` is a file of apt options that hold while the image is made, and are not left in it."""
    hooks = [f'rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/{name}"' for name in ("resolv.conf", "hostname")]
    return [
        "mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar", "--skip=output/dev",
        *(["--include=" + ",".join(include)] if include else []),
        f"--aptopt={options}",
        *[f"--customize-hook={hook}" for hook in hooks],
        suite, target, *map(str, entries),
    ]  # fmt: skip


def write_rootfs(folder: Path, suite: str, include: Sequence[str], progress: Callable[[str], None]) -> Path:
    """Make a minimal Debian in `folder`; returns its tar. `folder` is the caller's to remove.

    Raises NotFound (mmdebstrap is missing), Invalid (bad suite or package names), Unavailable (the archive does not give it,
    or the disk is full).
    """
    for package in include:
        if not _PACKAGE.fullmatch(package):
            raise Invalid(f"invalid package name {package!r}")
    if shutil.which("mmdebstrap") is None:
        raise NotFound("mmdebstrap is not installed", hint="apt-get install mmdebstrap")
    entries = aptsources.for_suite(aptsources.host_entries(), suite)
    if not entries:
        raise Unavailable("this host's apt has no Debian archive configured", hint="see sources.list(5)")
    target, options = folder / "rootfs.tar", folder / "apt.conf"
    options.write_text(_host_options())
    os.chmod(folder, 0o711)  # apt's sandbox user must get to its download folder
    confined = [
        "setpriv", "--pdeathsig", "KILL",
        "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
    ]  # fmt: skip
    argv = confined + command(suite, str(target), entries, include, str(options))
    _run(argv, {**os.environ, "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}, f"debian:{suite}", progress)
    _add_dev(folder, target)
    return target


def _add_dev(folder: Path, tar: Path) -> None:
    """Put an empty /dev into the tar: mmdebstrap gives one with device nodes or none."""
    (folder / "dev").mkdir(mode=0o755)
    argv = ["tar", "--append", "--file", str(tar), "--directory", str(folder), "--owner=0", "--group=0", "--no-recursion", "./dev"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def _run(argv: list[str], environ: dict[str, str], what: str, progress: Callable[[str], None]) -> None:
    """Run mmdebstrap, telling its steps. Raises Unavailable with the last lines that it wrote."""
    told: list[str] = []
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ, text=True, errors="replace"
    ) as child:
        assert child.stderr is not None
        try:
            for line in child.stderr:
                told = [*told[1 - ERROR_LINES :], line.rstrip()]
                if match := _SHOWN.fullmatch(line.rstrip()):
                    progress(f"{what}: {match[1]}")
        except BaseException:
            child.kill()
            raise
    if child.returncode == 0:
        return
    errors = [line[3:] for line in told if line.startswith("E: ")]
    if "No space left on device" in "\n".join(told):
        raise Unavailable(f"{what}: no space left on the device", hint="free some space, or see `bothy system df`")
    if not errors:
        raise Broken(f"{what}: {' '.join(told) or f'mmdebstrap ended with {child.returncode}'}")
    hint = "are suite and packages in the archive of this host's apt, and does `apt-get update` work?"
    raise Unavailable(f"{what}: {errors[0]}", hint=hint)


def _host_options() -> str:
    """The host's apt options on how to reach and check the archive (proxies, certificates, dates), in apt.conf's form."""
    if shutil.which("apt-config") is None:
        return ""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout
    kept = [line for line in dump.splitlines() if line.startswith(_PASSED_ON)]
    for name, key in (("auth.conf", "Dir::Etc::netrc"), ("auth.conf.d", "Dir::Etc::netrcparts")):
        if os.path.exists(f"/etc/apt/{name}"):
            kept.append(f'{key} "/etc/apt/{name}";')
    return "".join(f"{line}\n" for line in kept)
