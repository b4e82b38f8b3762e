"""What the kernel holds on our behalf, as a value: two of them are compared around every test, and must be equal."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bothy.paths import Paths
from tests.support.engine import TestEngine, await_

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans of the engine come to this process, where `reap` buries them (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> None:
    """Bury dead children that nobody waits for: adopted ones. Children of the subprocess module are waited for by it."""
    tasks = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in map(int, tasks):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat[0] == "Z":
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


@dataclass(frozen=True)
class Snapshot:
    """Everything that a workload may leave behind, as sorted names. The engine's own processes may not grow in fds."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    links: tuple[str, ...]
    rules: tuple[str, ...]
    cgroups: tuple[str, ...]
    files: tuple[str, ...]
    daemon_fds: int
    spawner_fds: int


def snapshot(engine: TestEngine) -> Snapshot:
    """What is there now."""
    paths = Paths(engine.root, engine.run_folder)
    reap()
    processes = engine.processes()
    ruleset = _ruleset()
    return Snapshot(
        processes=tuple(sorted(processes.values())),
        mounts=tuple(sorted(_mounts(paths))),
        links=tuple(sorted(_links(paths, ruleset))),
        rules=_elements(paths.scope, ruleset),
        cgroups=tuple(sorted(_cgroups(paths.scope))),
        files=tuple(sorted(_files(paths))),
        daemon_fds=_fds(processes, "bothyd"),
        spawner_fds=_fds(processes, "bothy-spawner"),
    )


def assert_settled(engine: TestEngine, before: Snapshot) -> None:
    """Wait for what the kernel takes down asynchronously, then compare. Only what is new counts as left behind."""
    last = [snapshot(engine)]

    def settled() -> bool:
        last[0] = snapshot(engine)
        return not difference(before, last[0])

    try:
        await_(settled, "the test to settle", timeout=10)
    except AssertionError:
        raise AssertionError(f"left behind: {difference(before, last[0])}") from None


def difference(before: Snapshot, after: Snapshot) -> dict[str, object]:
    found: dict[str, object] = {}
    for field in fields(Snapshot):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if isinstance(old, tuple):
            if extra := _extra(old, new):
                found[field.name] = extra
        elif old and new > old + 40:  # the pool of sandboxes fills, connections are just closing
            found[field.name] = f"{old} before, {new} after"
    return found


def _extra(old: tuple[str, ...], new: tuple[str, ...]) -> list[str]:
    rest = list(new)
    for name in old:
        if name in rest:
            rest.remove(name)
    return rest


def _mounts(paths: Paths) -> list[str]:
    """Mount points, but for those in places where others on this host (engines, tests, ip-netns(8)) mount what is theirs."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = (f"{paths.root}/", f"{paths.run}/")
    return [point for point in points if point.startswith(ours) or not point.startswith(("/run/", "/tmp/", "/var/tmp/"))]


def _links(paths: Paths, ruleset: list[dict[str, Any]]) -> list[str]:
    """Interfaces of this engine: its bridge, what is on it, and links that are on no bridge at all: of workloads, and bridges of
    further networks but for those that stand in other engines' tables."""
    bridge = f"by{paths.key}0" if paths.key else "bothy0"
    others = json.dumps([item for item in ruleset for body in item.values() if body.get("table") != paths.scope])
    found = []
    for name in os.listdir("/sys/class/net"):
        master = Path("/sys/class/net", name, "master")
        try:
            owner = master.readlink().name
        except OSError:  # it is on no bridge, or has just gone: others make and remove links here too
            owner = ""
        loose = not owner and name.startswith("by") and len(name) >= 14 and f'"{name}"' not in others
        if bridge in (name, owner) or loose:
            found.append(name)
    return found


def _ruleset() -> list[dict[str, Any]]:
    """All that nftables has, as nft(8) prints it in JSON: objects of one kind and its fields each."""
    done = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, check=False)
    items: list[dict[str, Any]] = [] if done.returncode else json.loads(done.stdout)["nftables"]
    return items


def _elements(table: str, ruleset: list[dict[str, Any]]) -> tuple[str, ...]:
    """The rules and set elements of the engine's nftables table, as text lines."""
    lines = []
    for item in ruleset:
        for kind in ("rule", "map", "set"):
            body = item.get(kind)
            if body and body.get("table") == table:
                lines.append(json.dumps({k: v for k, v in body.items() if k not in ("handle", "expr")}, sort_keys=True))
                lines.extend(json.dumps(e) for e in body.get("elem", []))
    return tuple(sorted(lines))


def _cgroups(scope: str) -> set[str]:
    # os.walk, for other engines' cgroups may vanish while we look, which pathlib does not forgive.
    folders = (folder for folder, _, _ in os.walk("/sys/fs/cgroup"))
    return {folder for folder in folders if f"/{scope}/" in folder}


def _files(paths: Paths) -> list[str]:
    """Folders of workloads, their keepers, and anonymous volumes."""
    places = (paths.root / "containers", paths.run / "keepers", paths.volumes, paths.root / "tmp", paths.images / "tmp")
    return [str(entry) for place in places if place.is_dir() for entry in place.iterdir()]


def _fds(processes: dict[int, str], name: str) -> int:
    for pid, comm in processes.items():
        if comm == name:
            try:
                return len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                return 0
    return 0
