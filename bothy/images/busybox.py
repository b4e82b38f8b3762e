"""An image of one program: Debian's busybox-static under all its names. No network needed.

The archive is made by this module and unpacked like everybody else's. It depends on nothing but the busybox binary, so the same
binary always gives the same image id.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import BinaryIO

from bothy.errors import NotFound, Unsupported

BINARY = "/bin/busybox"
FOLDERS = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o700, "run": 0o755, "sys": 0o755,
    "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "var": 0o755, "var/log": 0o755,
    "var/spool": 0o755, "var/spool/mail": 0o755, "var/www": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = """root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
wheel:x:10:
mail:x:8:
www-data:x:33:
operator:x:37:
users:x:100:
nobody:x:65534:
"""
FILES = {
    "etc/passwd": (PASSWD, 0o644),
    "etc/group": (GROUP, 0o644),
    "etc/shadow": ("root:*:::::::\n", 0o640),
    "etc/nsswitch.conf": ("passwd: files\ngroup: files\nhosts: files dns\n", 0o644),
}


def write_rootfs(out: BinaryIO, binary: str = BINARY) -> int:
    """Write the image's tar; returns the time it is of (that of the binary), in seconds since the epoch.

    Raises NotFound if busybox is not installed, Unsupported if it needs shared libraries.
    """
    try:
        content = Path(binary).read_bytes()
    except FileNotFoundError:
        raise NotFound("busybox is not installed", hint="apt-get install busybox-static") from None
    if b"/ld-linux" in content or b"/ld-musl" in content:
        raise Unsupported(f"{binary} needs shared libraries", hint="apt-get install busybox-static")
    when = int(os.stat(binary).st_mtime)
    listed = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    applets = sorted(set(listed.stdout.split()) - {"busybox"})
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode in FOLDERS.items():
            archive.addfile(_entry(name, tarfile.DIRTYPE, mode, when))
        program = _entry("bin/busybox", tarfile.REGTYPE, 0o755, when)
        program.size = len(content)
        archive.addfile(program, io.BytesIO(content))
        for applet in applets:
            link = _entry(f"bin/{applet}", tarfile.LNKTYPE, 0o755, when)
            link.linkname = "bin/busybox"
            archive.addfile(link)
        env = _entry("usr/bin/env", tarfile.SYMTYPE, 0o777, when)
        env.linkname = "../../bin/env"
        archive.addfile(env)
        for name, (text, mode) in FILES.items():
            file = _entry(name, tarfile.REGTYPE, mode, when)
            file.size = len(text)
            archive.addfile(file, io.BytesIO(text.encode()))
    return when


def _entry(name: str, kind: bytes, mode: int, when: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, when
    return entry
