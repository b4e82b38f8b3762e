"""The figures: what is measured, against what, and how far it must reach. Each function adds rows to the report.

Everything that is compared is measured in turn (A B C A B C …) within one run, and medians are quoted.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.peers import IMAGE, Bothy, Docker, Peer, Podman, Runtime, output, quiet, wait_until


@dataclass
class Figure:
    """One line of the report. `value` and `limit` in `unit`; it is reached when value ≤ limit. `samples` by who, in the unit."""

    name: str
    value: float
    limit: float
    unit: str
    rule: str
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        return self.value <= self.limit

    @property
    def medians(self) -> dict[str, float]:
        return {who: statistics.median(values) for who, values in self.samples.items() if values}


@dataclass
class Bench:
    """Who takes part, and how many rounds each figure gets."""

    work: Path
    bothy: Bothy
    docker: Docker
    podman: Podman
    runtimes: list[Runtime]
    rounds: int
    figures: list[Figure] = field(default_factory=list)

    def note(self, name: str, value: float, unit: str, samples: dict[str, list[float]]) -> None:
        """A figure that has to reach nothing: it is told beside the others."""
        self.figures.append(Figure(name, value, math.inf, unit, "for comparison", samples))
        print(f"  {name}: {value:.1f} {unit}", flush=True)

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        mark = "reached" if figure.reached else "MISSED"
        print(f"  {figure.name}: {figure.value:.1f} {figure.unit} (limit {figure.limit:.1f}, {figure.rule}) {mark}", flush=True)


def timed(argv: list[str]) -> float:
    """Milliseconds that a whole command takes; it must succeed."""
    start = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = (time.perf_counter() - start) * 1e3
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(argv)}: exit code {done.returncode}: {done.stderr.decode(errors='replace')}")
    return took


def in_turn(makers: Mapping[str, Callable[[], float]], rounds: int, warm: int = 2) -> dict[str, list[float]]:
    """Call each maker once a round, in turn, every other round in reverse, for who comes first finds another host than who comes
    second; the first `warm` rounds are thrown away."""
    samples: dict[str, list[float]] = {who: [] for who in makers}
    for number in range(rounds + warm):
        for who in list(makers) if number % 2 == 0 else reversed(list(makers)):
            took = makers[who]()
            if number >= warm:
                samples[who].append(took)
    return samples


def median(values: list[float]) -> float:
    return statistics.median(values)


def pss(pids: list[int]) -> float:
    """Proportional set size of the processes together, in MB (proc(5), smaps_rollup)."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return total / 1024


def children(pid: int) -> list[int]:
    """The child processes of a process, for a keeper its QEMU (proc(5))."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def settled_pss(pids: Callable[[], list[int]]) -> float:
    """PSS once two readings half a second apart agree within 1 %: nobody is still starting."""
    last = pss(pids())
    while True:
        time.sleep(0.5)
        now = pss(pids())
        if abs(now - last) <= 0.01 * last:
            return now
        last = now


def runs(bench: Bench) -> None:
    """`run --rm IMAGE true`, whole command, default network and none; and `--vm` beside docker's container."""
    for title, flags, of_docker, of_podman in (
        ("default network", (), 1 / 5, 1 / 4),
        ("--network none", ("--network=none",), 1 / 5, 1 / 2),
    ):
        engines: list[Peer] = [bench.bothy, bench.docker, bench.podman]
        commands = {e.name: e.run("--rm", *flags) for e in engines}
        samples = in_turn({who: partial(timed, argv) for who, argv in commands.items()}, bench.rounds)
        mine = median(samples["bothy"])
        for peer, share in (("docker", of_docker), ("podman", of_podman)):
            limit = median(samples[peer]) * share
            bench.add(Figure(f"run --rm, {title}, of {peer}", mine, limit, "ms", f"1/{1 / share:.0f} of {peer}'s", samples))


def machine_runs(bench: Bench) -> None:
    """`run --rm --vm` with a warm template, beside docker's container: with a spare machine waiting, and without one."""
    quiet(bench.bothy.run("--rm", "--vm"))

    def alone(argv: list[str]) -> float:
        """Timed once the spare machine is made: its making is not to slow down the one that is measured."""
        wait_until(bench.bothy.has_spare, "a spare machine")
        return timed(argv)

    container = "docker (container)"
    machine, docker = bench.bothy.run("--rm", "--vm"), bench.docker.run("--rm")
    samples = in_turn({"bothy --vm": partial(alone, machine), container: partial(alone, docker)}, bench.rounds)
    limit = median(samples[container])
    bench.add(Figure("run --rm --vm, template warm", median(samples["bothy --vm"]), limit, "ms", "docker's container", samples))
    bench.bothy.restart(spares=False)
    quiet(machine)
    samples = in_turn({"bothy --vm": partial(timed, machine), container: partial(timed, docker)}, bench.rounds)
    bench.bothy.restart(spares=True)
    bench.note("run --rm --vm, template warm, no spare machine", median(samples["bothy --vm"]), "ms", samples)


def first_machine(bench: Bench) -> None:
    """The first `--vm` run ever: no template, no machine disk."""
    quiet(bench.bothy.run("--rm", "--vm"))
    took = []
    for _ in range(3):
        quiet(
            [
                bench.bothy.command,
                "machine",
                "template",
                "rm",
                *output([bench.bothy.command, "machine", "template", "ls", "-q"]).split(),
            ]
        )
        for disk in (bench.bothy.root / "images" / "disks").iterdir():
            disk.unlink()
        took.append(timed(bench.bothy.run("--rm", "--vm")) / 1e3)
    bench.add(Figure("first --vm run ever", median(took), 10, "s", "10 s", {"bothy": took}))


def api_cycle(bench: Bench) -> None:
    """create + start + wait + remove over the API beside `runc run` of the same image."""
    client = bench.bothy.client()
    body = json.dumps({"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}).encode()

    def cycle() -> float:
        start = time.perf_counter()
        made = client.request("POST", "/containers/create", body=body).json()
        client.request("POST", f"/containers/{made['Id']}/start")
        client.request("POST", f"/containers/{made['Id']}/wait").json()
        client.request("DELETE", f"/containers/{made['Id']}")
        return (time.perf_counter() - start) * 1e3

    makers: dict[str, Callable[[], float]] = {"bothy": cycle}
    for runtime in bench.runtimes:
        makers[runtime.name] = partial(lambda r: timed(r.run()), runtime)
    samples = in_turn(makers, max(bench.rounds, 30))
    bench.add(
        Figure(
            "create + start + wait + remove, API",
            median(samples["bothy"]),
            1.5 * median(samples["runc"]),
            "ms",
            "1.5 x runc run",
            samples,
        )
    )


def fifty(bench: Bench) -> None:
    """50 containers started at once: from the first command until all of them run."""

    def at_once(engine: Peer) -> float:
        start = time.perf_counter()
        commands = [engine.run("-d", "--label=fifty", command=("sleep", "600")) for _ in range(50)]
        started = [subprocess.Popen(c, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for c in commands]
        names = []
        for process in started:
            out, err = process.communicate()
            if process.returncode:
                raise SystemExit(f"bench: {engine.name}: {err.decode(errors='replace')}")
            names.append(out.decode().strip())
        wait_until(lambda: engine.running("fifty") == 50, f"50 containers of {engine.name}")
        took = time.perf_counter() - start
        quiet(engine.remove(*names))
        return took

    engines: list[Peer] = [bench.bothy, bench.docker]
    samples = in_turn({e.name: partial(at_once, e) for e in engines}, bench.rounds, warm=1)
    bench.add(
        Figure("50 containers at once", median(samples["bothy"]), median(samples["docker"]) / 4, "s", "1/4 of docker's", samples)
    )


def memory(bench: Bench) -> None:
    """PSS of the idle engine, of what an idle container adds, and of an idle 128 MB machine."""
    bothy = bench.bothy

    def own() -> list[int]:
        return [pid for pid, comm in bothy.processes().items() if comm.startswith("bothy")]

    bothy.restart(spares=False)
    quiet([bothy.command, "ps"])
    idle = settled_pss(own)
    bench.add(Figure("idle engine (bothyd + spawner), PSS", idle, 60, "MB", "60 MB", {"bothy": [idle]}))
    quiet(bothy.run("--rm"))
    before = settled_pss(own)
    bench.note("the same after a run, with its name server", before, "MB", {"bothy": [before]})
    count = 20
    names = [output(bothy.run("-d", command=("sleep", "600"))) for _ in range(count)]
    each = (settled_pss(own) - before) / count
    quiet(bothy.remove(*names))
    bench.add(Figure("PSS an idle container adds", each, 1, "MB", "1 MB", {"bothy": [each]}))
    others = set(bothy.processes())
    name = output(bothy.run("-d", "--vm", "--memory=128m", command=("sleep", "600")))
    keepers = [pid for pid in bothy.processes() if pid not in others]
    machine = settled_pss(lambda: [pid for keeper in keepers for pid in (keeper, *children(keeper))])
    quiet(bothy.remove(name))
    bothy.restart(spares=True)
    bench.add(Figure("idle 128 MB machine, QEMU and keeper, PSS", machine, 110, "MB", "110 MB", {"bothy": [machine]}))


def ps(bench: Bench) -> None:
    """`bothy ps` beside an interpreter that does nothing."""
    python = [str(Path(sys.executable)), "-I", "-c", "pass"]
    samples = in_turn(
        {"bothy ps": lambda: timed([bench.bothy.command, "ps"]), "python -I -c pass": lambda: timed(python)}, max(bench.rounds, 30)
    )
    limit = median(samples["python -I -c pass"]) + 40
    bench.add(Figure("ps, whole command", median(samples["bothy ps"]), limit, "ms", "python + 40 ms", samples))


def execute(bench: Bench) -> None:
    """`exec` in a running container, whole command, beside docker's."""
    engines: list[Peer] = [bench.bothy, bench.docker, bench.podman]
    names = {e.name: output(e.run("-d", command=("sleep", "600"))) for e in engines}
    samples = in_turn({e.name: partial(timed, e.execute(names[e.name], "true")) for e in engines}, max(bench.rounds, 30))
    for engine in engines:
        quiet(engine.remove(names[engine.name]))
    bench.add(Figure("exec, whole command", median(samples["bothy"]), median(samples["docker"]), "ms", "docker exec", samples))


ALL: tuple[Callable[[Bench], None], ...] = (runs, api_cycle, execute, ps, machine_runs, fifty, memory, first_machine)


def host() -> dict[str, object]:
    """What the figures were measured on."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "kernel": os.uname().release, "cpus": os.cpu_count(), "cpu": cpu[1] if cpu else "", "memory_mb": memory_kb // 1024,
        "python": sys.version.split()[0], "qemu": output(["qemu-system-x86_64", "--version"]).splitlines()[0],
    }  # fmt: skip
