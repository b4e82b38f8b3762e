"""`python -m bench [--rounds N] [--only NAME,…] [--out FOLDER]`: measure bothy beside its peers on this host, as root.

Everything runs in a network namespace of the bench's own, so that no peer touches the host's firewall, and with state below a
temporary folder; both are gone at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import clients, figures, report
from bench.peers import Bothy, Docker, Podman, Runtime

ALL = (*figures.ALL, *clients.ALL)
CLONE_NEWNS = 0x20000
CLONE_NEWNET = 0x40000000
MS_REC_PRIVATE = 0x4000 | 0x40000


def own_namespaces() -> None:
    """Leave the host's network and mounts (unshare(2)); the loopback device is up."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) or libc.mount(None, b"/", None, MS_REC_PRIVATE, None):
        raise SystemExit(f"bench: unshare: {os.strerror(ctypes.get_errno())} (run as root)")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="paired runs a figure (default %(default)s)")
    parser.add_argument("--only", default="", help="figures to measure: " + ",".join(f.__name__ for f in ALL))
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where the report goes (default %(default)s)")
    args = parser.parse_args()
    chosen = [f for f in ALL if not args.only or f.__name__ in args.only.split(",")]
    own_namespaces()
    work = Path(tempfile.mkdtemp(prefix="bothy-bench-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        bothy = Bothy(work)
        stack.callback(bothy.close)
        archive = bothy.archive(work / "image.tar")
        docker = Docker(work, archive)
        stack.callback(docker.close)
        podman = Podman(work, archive)
        stack.callback(podman.close)
        runtimes = [r for r in (Runtime(name, work, archive) for name in ("runc", "crun")) if r.runs()]
        bench = figures.Bench(work, bothy, docker, podman, runtimes, args.rounds)
        about = figures.host() | {e.name: e.version() for e in (bothy, docker, podman, *runtimes)} | {"rounds": args.rounds}
        for measure in chosen:
            print(f"{measure.__name__}: {(measure.__doc__ or '').splitlines()[0]}", flush=True)
            measure(bench)
        report.write(bench.figures, about, args.out)
    print(f"\n{report.table(bench.figures)}\nwritten to {args.out}/figures.{{md,json,svg}}")
    return 0 if all(f.reached for f in bench.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
