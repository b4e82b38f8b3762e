"""logs, top, port and stats: looking at workloads."""

from __future__ import annotations

import sys
import time

from bothy.cli.context import Context, out, path_part
from bothy.cli.errors import Failure
from bothy.cli.flags import Command, Values
from bothy.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def logs(context: Context, flags: Values) -> int:
    """What a workload has said, and with --follow what it says until it ends."""
    from bothy.api.frames import STDERR, Decoder
    from bothy.cli import human, streams

    query: dict[str, Any] = {
        "stdout": 1,
        "stderr": 1,
        "follow": flags.on("follow"),
        "timestamps": flags.on("timestamps"),
        "tail": flags.text("tail") or None,
    }
    for flag in ("since", "until"):
        if flags.given(flag):
            query[flag] = human.moment(flags.text(flag), flag)
    name = path_part(flags.args[0])
    response = context.client.request("GET", f"/containers/{name}/logs", query)
    framed = response.headers.get("content-type", "").endswith("multiplexed-stream")
    decoder = Decoder() if framed else None
    for data in response.chunks():
        if decoder is None:
            streams.write(1, data)
            continue
        for stream, part in decoder.feed(data):
            streams.write(2 if stream == STDERR else 1, part)
    return 0


def top(context: Context, flags: Values) -> int:
    """The processes of a workload, as `ps` shows them."""
    answer = context.get(f"/containers/{path_part(flags.args[0])}/top", {"ps_args": " ".join(flags.args[1:]) or None})
    from bothy.cli import tables

    titles = [str(title) for title in answer["Titles"]]
    tables.write(answer["Processes"] or [], [("", title, 1 if title in ("CMD", "COMMAND") else 0) for title in titles])
    return 0


def port(context: Context, flags: Values) -> int:
    """Where a workload's ports are published."""
    workload = context.get(f"/containers/{path_part(flags.args[0])}/json")
    published: dict[str, Any] = workload["NetworkSettings"].get("Ports") or {}
    wanted = flags.args[1] if len(flags.args) > 1 else ""
    if wanted:
        key = wanted if "/" in wanted else f"{wanted}/tcp"
        if not published.get(key):
            raise Failure(f"{flags.args[0]} does not publish port {key}", hint=f"bothy port {flags.args[0]} lists what it does")
        published = {key: published[key]}
    for key in sorted(published, key=lambda text: (int(text.partition("/")[0]), text)):
        for binding in published[key] or ():
            address = f"[{binding['HostIp']}]" if ":" in binding["HostIp"] else binding["HostIp"]
            out(f"{address}:{binding['HostPort']}" if wanted else f"{key} -> {address}:{binding['HostPort']}")
    return 0


SAMPLE_SECONDS = 1.0
STATS_COLUMNS = (
    ("ID", "CONTAINER ID", 0),
    ("Name", "NAME", 1),
    ("CPUPerc", "CPU %", 0),
    ("MemUsage", "MEM USAGE / LIMIT", 0),
    ("MemPerc", "MEM %", 0),
    ("NetIO", "NET I/O", 0),
    ("BlockIO", "BLOCK I/O", 0),
    ("PIDs", "PIDS", 0),
)


def stats(context: Context, flags: Values) -> int:
    """What workloads use: once, or (on a terminal, without --no-stream) again and again until Ctrl-C."""
    from bothy.cli import tables, terminal

    is_live = not flags.on("no-stream") and terminal.is_terminal(1)
    while True:
        begun = time.monotonic()
        names = flags.args or [entry["Id"] for entry in context.get("/containers/json", {"all": flags.on("all")})]
        answers = samples(context, names, may_be_gone=not flags.args)
        rows = [stats_row(answer, is_full=flags.on("no-trunc")) for answer in answers]
        if is_live:
            sys.stdout.write("\x1b[H\x1b[J")
        tables.show(rows, STATS_COLUMNS, form=flags.text("format"))
        if not is_live:
            return 0
        sys.stdout.flush()
        # The engine takes a second for what runs and none for what does not.
        time.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - begun)))


def samples(context: Context, names: list[str], *, may_be_gone: bool = False) -> list[dict[str, Any]]:
    """One sample of each, taken at the same time: the engine watches each for a second.

    Raises NotFound for one that is not there, unless it `may_be_gone`.
    """
    pending = [context.client.begin("GET", f"/containers/{path_part(name)}/stats", {"stream": 0}) for name in names]
    found = []
    for sample in pending:
        try:
            found.append(sample.response().json())
        except NotFound:
            if not may_be_gone:
                raise
    return found


def stats_row(answer: dict[str, Any], *, is_full: bool = False) -> dict[str, Any]:
    """Docker's fields of a sample: CPU in percent of one processor, memory without the page cache that can be dropped."""
    from bothy.cli import human

    memory = answer.get("memory_stats") or {}
    cache = (memory.get("stats") or {}).get("inactive_file") or (memory.get("stats") or {}).get("total_inactive_file") or 0
    used, limit = max(0, (memory.get("usage") or 0) - cache), memory.get("limit") or 0
    nets = (answer.get("networks") or {}).values()
    blocks = (answer.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read, written = (sum(b["value"] for b in blocks if str(b["op"]).lower() == op) for op in ("read", "write"))
    received, sent = (sum(net.get(key, 0) for net in nets) for key in ("rx_bytes", "tx_bytes"))
    return {
        "ID": answer["id"] if is_full else answer["id"][:12],
        "Name": str(answer.get("name") or "").removeprefix("/"),
        "CPUPerc": f"{cpu_percent(answer):.2f}%",
        "MemUsage": f"{human.binary_size(used)} / {human.binary_size(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human.size(received)} / {human.size(sent)}",
        "BlockIO": f"{human.size(read)} / {human.size(written)}",
        "PIDs": str((answer.get("pids_stats") or {}).get("current") or 0),
    }


def cpu_percent(answer: dict[str, Any]) -> float:
    """Processor time over system time between the two readings of a sample, times the processors."""
    now, before = answer.get("cpu_stats") or {}, answer.get("precpu_stats") or {}
    used = ((now.get("cpu_usage") or {}).get("total_usage") or 0) - ((before.get("cpu_usage") or {}).get("total_usage") or 0)
    passed = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    return used / passed * (now.get("online_cpus") or 1) * 100 if used > 0 and passed > 0 else 0.0


COMMANDS = {
    "logs": Command(
        "logs",
        "Print what a workload has written to stdout and stderr",
        logs,
        arguments="WORKLOAD",
        least=1,
        most=1,
        flags=(
            ("follow", "f", "bool", "", "Go on until the workload ends"),
            ("since", "", "text", "time", "From this time on: 10m, or 2026-01-31T12:00:00Z"),
            ("until", "", "text", "time", "Up to this time"),
            ("tail", "n", "text", "number", "Only so many lines from the end (default all)"),
            ("timestamps", "t", "bool", "", "The time before each line"),
            ("details", "", "bool", "", "Accepted for Docker's sake"),
        ),
        dynamic="containers",
        examples=(
            ("bothy logs -f --tail 20 web", "The last lines, and what comes"),
            ("bothy logs --since 10m web", "The last ten minutes"),
        ),
    ),
    "top": Command(
        "top",
        "List the processes of a workload",
        top,
        arguments="WORKLOAD [PS-OPTION…]",
        least=1,
        most=-1,
        interspersed=False,
        dynamic="running",
        examples=(("bothy top web", "As ps -ef shows them"),),
    ),
    "port": Command(
        "port",
        "Print where the ports of a workload are published",
        port,
        arguments="WORKLOAD [PORT[/PROTOCOL]]",
        least=1,
        most=2,
        dynamic="running",
        examples=(("bothy port web 80", "0.0.0.0:8080"),),
    ),
    "stats": Command(
        "stats",
        "Show what workloads use of processors, memory, network and disks",
        stats,
        arguments="[WORKLOAD…]",
        most=-1,
        flags=(
            ("all", "a", "bool", "", "Also those that do not run"),
            ("format", "", "text", "format", "table, json or a template"),
            ("no-stream", "", "bool", "", "Once only"),
            ("no-trunc", "", "bool", "", "Do not shorten ids"),
        ),
        dynamic="running",
        notes="Fields for --format: ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs.",
        examples=(("bothy stats --no-stream", "One look at all that run"),),
    ),
}
