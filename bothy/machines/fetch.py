"""Get a guest kernel: `python -m bothy.machines.fetch [FOLDER]` downloads Debian's kernel package and unpacks it.

An installed kernel package would also make an initramfs and boot loader entries for the host; machines need only the files. They
go to FOLDER/VERSION (default: `bothy.machines.kernel.SHARED`, where every engine of this host finds them). What is there stays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bothy.errors import BothyError, Unavailable
from bothy.machines.kernel import MODULES, PACKAGE, SHARED, kernels_below, missing_modules


def fetch(folder: Path) -> Path:
    """The folder of an unpacked kernel below `folder`; downloads one if there is none that will do.

    Raises Unavailable, telling what apt said; a failure leaves nothing behind.
    """
    for root in sorted(folder.iterdir()) if folder.is_dir() else ():
        if any(not missing_modules(kernel, MODULES) for kernel in kernels_below(root)):
            return root
    folder.mkdir(parents=True, exist_ok=True)
    package = _dependency(PACKAGE)
    target = folder / package.removeprefix("linux-image-")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as work:
        os.chmod(work, 0o755)  # apt downloads as its own user where it may
        _run(["apt-get", "-q", "download", package], cwd=work)
        archives = list(Path(work).glob("*.deb"))
        if len(archives) != 1:
            raise Unavailable(f"apt-get download {package} left {len(archives)} packages", hint="is the archive complete?")
        _run(["dpkg", "-x", str(archives[0]), f"{work}/root"])
        shutil.rmtree(target, ignore_errors=True)
        os.rename(f"{work}/root", target)
    return target


def _dependency(package: str) -> str:
    """The versioned package that a meta package depends on."""
    lines = _run(["apt-cache", "--no-recommends", "depends", package]).splitlines()
    names = [line.split()[-1] for line in lines if "Depends:" in line]
    found = next((name for name in names if name.startswith("linux-image-")), None)
    if found is None:
        raise Unavailable(f"apt knows no package {package}", hint="run: apt-get update")
    return found


def _run(argv: list[str], cwd: str | None = None) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise Unavailable(f"{argv[0]} is not here", hint=f"install the package {PACKAGE} by hand") from exc
    if done.returncode:
        raise Unavailable(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}", hint="run: apt-get update")
    return done.stdout


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED
    try:
        fetch(folder)
    except (BothyError, OSError) as exc:
        print(f"bothy: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
