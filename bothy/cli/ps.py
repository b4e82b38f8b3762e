"""ps: what runs here, and with -a what did."""

from __future__ import annotations

from bothy.cli.context import Context, filters_query, out
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (
    ("ID", "CONTAINER ID", 0),
    ("Image", "IMAGE", 2),
    ("Command", "COMMAND", -1),
    ("RunningFor", "CREATED", -2),
    ("Status", "STATUS", 0),
    ("Wall", "WALL", 0),
    ("Ports", "PORTS", 5),
    ("Names", "NAMES", 1),
)
HEADINGS = {"CreatedAt": "CREATED AT", "LocalVolumes": "LOCAL VOLUMES"}


def ps(context: Context, flags: Values) -> int:
    """One row for each workload."""
    is_full = flags.on("no-trunc")
    query: dict[str, Any] = {
        "all": flags.on("all"),
        "size": flags.on("size"),
        "limit": 1 if flags.on("latest") else flags.number("last", -1) if flags.given("last") else None,
        "filters": filters_query(flags.many("filter")) or None,
    }
    from bothy.cli import tables

    found = context.get("/containers/json", query)
    form = flags.text("format")
    columns = [*COLUMNS, ("Size", "SIZE", 0)] if flags.on("size") else COLUMNS
    if flags.on("quiet") and form in ("", "table"):
        for entry in found:
            out(entry["Id"] if is_full else entry["Id"][:12])
        return 0
    tables.show([row(entry, is_full=is_full) for entry in found], columns, form=form, headings=HEADINGS)
    return 0


def row(entry: dict[str, Any], *, is_full: bool) -> dict[str, Any]:
    """Docker's fields for `--format`, of an entry of `GET /containers/json`."""
    from bothy.cli import human

    command = str(entry.get("Command") or "")
    mounts = entry.get("Mounts") or []
    labels = entry.get("Labels") or {}
    settings = entry.get("NetworkSettings") or {}
    runtime = (entry.get("HostConfig") or {}).get("Runtime", "")
    from bothy.cli.tables import Labelled

    told = Labelled()
    told.labels = labels
    told |= {
        "ID": entry["Id"] if is_full else entry["Id"][:12],
        "Image": _image(str(entry.get("Image") or ""), is_full=is_full),
        "Command": f'"{command if is_full or len(command) <= 20 else command[:19] + "…"}"',
        "CreatedAt": human.local_time(entry["Created"]),
        "RunningFor": human.ago(entry["Created"]),
        "Status": entry.get("Status", ""),
        "State": entry.get("State", ""),
        "Wall": "vm" if runtime == "vm" else "container",
        "Ports": ports(entry.get("Ports") or []),
        "Names": ",".join(name.removeprefix("/") for name in entry.get("Names") or []),
        "Size": _size(entry),
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "Mounts": ",".join(str(mount.get("Name") or mount.get("Source") or "") for mount in mounts),
        "LocalVolumes": str(sum(1 for mount in mounts if mount.get("Type") == "volume")),
        "Networks": ",".join(sorted(settings.get("Networks") or {})),
    }
    return told


def _image(name: str, *, is_full: bool) -> str:
    return name[7:19] if name.startswith("sha256:") and not is_full else name


def _size(entry: dict[str, Any]) -> str:
    from bothy.cli import human

    written, everything = entry.get("SizeRw") or 0, entry.get("SizeRootFs") or 0
    return f"{human.size(written)} (virtual {human.size(everything)})" if everything else human.size(written)


def ports(entries: list[dict[str, Any]]) -> str:
    """`0.0.0.0:8080->80/tcp, 90-92/udp`: published ports, then exposed ones; neighbours as one range."""
    runs: list[list[Any]] = []  # [address, first public, first private, protocol, length]
    for entry in sorted(entries, key=_port_order):
        address, public, private, protocol = _port_order(entry)
        if runs:
            last = runs[-1]
            follows = last[2] + last[4] == private and (not public or last[1] + last[4] == public)
            if last[0] == address and last[3] == protocol and bool(last[1]) == bool(public) and follows:
                last[4] += 1
                continue
        runs.append([address, public, private, protocol, 1])
    return ", ".join(_port_run(*run) for run in runs)


def _port_order(entry: dict[str, Any]) -> tuple[str, int, int, str]:
    return str(entry.get("IP") or ""), int(entry.get("PublicPort") or 0), int(entry["PrivatePort"]), str(entry.get("Type") or "tcp")


def _port_run(address: str, public: int, private: int, protocol: str, length: int) -> str:
    inside = _span(private, length)
    if not public:
        return f"{inside}/{protocol}"
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{_span(public, length)}->{inside}/{protocol}"


def _span(first: int, length: int) -> str:
    return str(first) if length == 1 else f"{first}-{first + length - 1}"


COMMANDS = {
    "ps": Command(
        "ps",
        "List the workloads that run (with -a all of them)",
        ps,
        flags=(
            ("all", "a", "bool", "", "All, not only those that run"),
            (
                "filter",
                "f",
                "list",
                "key=value",
                "Only those: name, id, label, status, ancestor, exited, network, volume, publish, …",
            ),
            ("format", "", "text", "format", "table, json, or a template: '{{.ID}} {{.Names}}', 'table {{.Names}}\\t{{.Status}}'"),
            ("last", "n", "int", "number", "The last made ones, in any state"),
            ("latest", "l", "bool", "", "The last made one"),
            ("no-trunc", "", "bool", "", "Do not shorten ids and commands"),
            ("quiet", "q", "bool", "", "Ids only"),
            ("size", "s", "bool", "", "How much they have written"),
        ),
        notes="On a terminal that is too narrow the columns CREATED and COMMAND are left out. Fields for --format: ID Image "
        "Command CreatedAt RunningFor Status State Wall Ports Names Size Labels Mounts LocalVolumes Networks.",
        examples=(
            ("bothy ps -a", "Also those that have ended"),
            ("bothy ps --format '{{.Names}}: {{.Status}}'", "One line a workload, as you like it"),
            ("bothy ps -aq --filter status=exited", "Ids, for another command"),
        ),
    ),
}
