"""The engines that are measured: bothy and its peers, each with a state of its own, all in one network namespace of the bench.

A peer knows how to give commands (argv lists) for the things that are timed. Peers of Debian's packages need explicit limits on
hosts where root lacks CAP_SYS_RESOURCE; the same limits are given to every peer on every host, so that figures compare.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bothy.api.client import Client

IMAGE = "bench/busybox"
NOFILE = "--ulimit=nofile=1024:1024"
NPROC = "--ulimit=nproc=1024:1024"


class Peer(Protocol):
    """An engine with a command line. `run` and `execute` give the argv of a whole command."""

    name: str

    def version(self) -> str: ...
    def run(self, *flags: str, command: tuple[str, ...] = ("true",)) -> list[str]: ...
    def execute(self, container: str, *command: str) -> list[str]: ...
    def remove(self, *containers: str) -> list[str]: ...
    def running(self, label: str) -> int: ...
    def close(self) -> None: ...


def quiet(argv: list[str], **kwargs: object) -> None:
    """Run a command to its end; its output is shown only if it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, **kwargs)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(argv)}: exit code {done.returncode}: {done.stderr.decode(errors='replace').strip()}")


def output(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"bench: waited {seconds:.0f} s for {what}")
        time.sleep(0.005)


class Bothy:
    """bothy with a root and a run folder below the bench's working folder."""

    name = "bothy"

    def __init__(self, work: Path) -> None:
        self.root, self.run_folder = work / "bothy", work / "bothy-run"
        os.environ.update(BOTHY_ROOT=str(self.root), BOTHY_RUN=str(self.run_folder))
        self.command = str(Path(sys.executable).parent / "bothy")
        quiet([self.command, "image", "bootstrap", "busybox", "-t", IMAGE])

    def version(self) -> str:
        return output([self.command, "version", "--format", "{{.Server.Version}}"])

    def run(self, *flags: str, command: tuple[str, ...] = ("true",)) -> list[str]:
        return [self.command, "run", *flags, IMAGE, *command]

    def execute(self, container: str, *command: str) -> list[str]:
        return [self.command, "exec", container, *command]

    def remove(self, *containers: str) -> list[str]:
        return [self.command, "rm", "-f", *containers]

    def running(self, label: str) -> int:
        return len(output([self.command, "ps", "-q", "--filter", f"label={label}"]).split())

    def has_spare(self) -> bool:
        """Whether a machine waits for the next `run --vm`."""
        return output([self.command, "info", "-f", "{{.MachineSpares}}"]) == "1"

    def restart(self, *, spares: bool) -> None:
        """End the daemon; the next one keeps spare machines or not."""
        quiet([self.command, "system", "shutdown"])
        wait_until(lambda: not self.processes(), "bothy to end")
        os.environ["BOTHY_SPARES"] = str(int(spares))

    def client(self) -> Client:
        return Client(str(self.run_folder / "bothy.sock"))

    def archive(self, path: Path) -> Path:
        """The bench's image as an archive that the peers load: all engines run the same image."""
        quiet([self.command, "save", "-o", str(path), IMAGE])
        return path

    def processes(self) -> dict[int, str]:
        """bothy's own processes by pid: with this run folder in their environment, as peers have it too."""
        mark, found = f"BOTHY_RUN={self.run_folder}".encode(), {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                comm = (entry / "comm").read_text().strip()
                if comm.startswith("bothy") and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = comm
            except OSError:
                continue
        return found

    def close(self) -> None:
        subprocess.run([self.command, "system", "shutdown", "--teardown", "--force"], capture_output=True, check=False)


class Docker:
    """dockerd of Debian's docker.io, in the bench's network namespace, with a containerd of its own."""

    name = "docker"

    def __init__(self, work: Path, archive: Path) -> None:
        self.socket = work / "docker.sock"
        self.command = ["/usr/bin/docker", "-H", f"unix://{self.socket}"]
        with (work / "dockerd.log").open("wb") as log:
            self.daemon = subprocess.Popen(
                ["/usr/sbin/dockerd", "--data-root", str(work / "docker"), "--exec-root", str(work / "docker-exec"),
                 "-H", f"unix://{self.socket}", "--pidfile", str(work / "docker.pid")],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        wait_until(lambda: not subprocess.run([*self.command, "version"], capture_output=True, check=False).returncode, "dockerd")
        quiet([*self.command, "load", "-i", str(archive)])

    def version(self) -> str:
        return output([*self.command, "version", "--format", "{{.Server.Version}}"])

    def run(self, *flags: str, command: tuple[str, ...] = ("true",)) -> list[str]:
        return [*self.command, "run", NOFILE, *flags, IMAGE, *command]

    def execute(self, container: str, *command: str) -> list[str]:
        return [*self.command, "exec", container, *command]

    def remove(self, *containers: str) -> list[str]:
        return [*self.command, "rm", "-f", *containers]

    def running(self, label: str) -> int:
        return len(output([*self.command, "ps", "-q", "--filter", f"label={label}"]).split())

    def close(self) -> None:
        self.daemon.terminate()
        self.daemon.wait()


class Podman:
    """podman of Debian with runc, in the bench's network namespace."""

    name = "podman"

    def __init__(self, work: Path, archive: Path) -> None:
        self.work = work
        self.command = [
            "podman", "--root", str(work / "podman"), "--runroot", str(work / "podman-run"), "--tmpdir", str(work / "podman-tmp"),
            "--runtime", "runc", "--cgroup-manager", "cgroupfs",
        ]  # fmt: skip
        quiet([*self.command, "load", "-i", str(archive)])

    def version(self) -> str:
        return output([*self.command, "version", "--format", "{{.Client.Version}}"])

    def run(self, *flags: str, command: tuple[str, ...] = ("true",)) -> list[str]:
        return [*self.command, "run", NOFILE, NPROC, *flags, IMAGE, *command]

    def execute(self, container: str, *command: str) -> list[str]:
        return [*self.command, "exec", container, *command]

    def remove(self, *containers: str) -> list[str]:
        return [*self.command, "rm", "-f", "-t", "0", *containers]

    def running(self, label: str) -> int:
        return len(output([*self.command, "ps", "-q", "--filter", f"label={label}"]).split())

    def close(self) -> None:
        subprocess.run([*self.command, "system", "reset", "--force"], capture_output=True, check=False)


class Runtime:
    """An OCI runtime (runc or crun) with a bundle made of the same image, as `RUNTIME run` would be used by hand."""

    def __init__(self, name: str, work: Path, archive: Path) -> None:
        self.name = name
        self.state = work / f"{name}-state"
        self.bundle = work / f"{name}-bundle"
        rootfs = self.bundle / "rootfs"
        rootfs.mkdir(parents=True)
        self._unpack(archive, rootfs)
        quiet([name, "spec"], cwd=self.bundle)
        config = self.bundle / "config.json"
        text = config.read_text().replace('"terminal": true', '"terminal": false').replace('"sh"', '"true"')
        config.write_text(text)
        self._count = 0

    @staticmethod
    def _unpack(archive: Path, rootfs: Path) -> None:
        with tarfile.open(archive) as tar:
            manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            for layer in manifest[0]["Layers"]:
                with tarfile.open(fileobj=tar.extractfile(layer)) as inner:
                    inner.extractall(rootfs)

    def runs(self) -> bool:
        """Whether this runtime works on this host at all (crun refuses the hybrid cgroup layout)."""
        return not subprocess.run(self.run(), capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode

    def version(self) -> str:
        return output([self.name, "--version"]).splitlines()[0].split()[-1]

    def run(self) -> list[str]:
        self._count += 1
        return [self.name, "--root", str(self.state), "run", "--bundle", str(self.bundle), f"bench-{self._count}"]
