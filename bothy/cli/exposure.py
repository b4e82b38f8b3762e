"""port add, port rm, port ls and network doctor: what is published, and who can reach it."""

from __future__ import annotations

from bothy.cli.context import Context, out, path_part
from bothy.cli.errors import UsageError
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (
    ("Name", "NAME", 1),
    ("Port", "PORT", 0),
    ("Address", "PUBLISHED ON", 0),
    ("Reach", "REACHED FROM", 0),
    ("At", "AT", 1),
)
REACH = {"host": "this host only", "lan": "local networks", "world": "everywhere"}


def add(context: Context, flags: Values) -> int:
    """Publish more ports of a workload; prints those that are new."""
    from bothy.cli import ports

    name, *texts = flags.args
    body = {"PortBindings": ports.publish(texts)}
    answer = context.post(f"/bothy/containers/{path_part(name)}/ports", body=body)
    for port in answer["Ports"]:
        out(_line(port))
    return 0


def remove(context: Context, flags: Values) -> int:
    """Publish ports of a workload no more; prints those that were."""
    from bothy.cli import ports

    name, *texts = flags.args
    for text in texts:
        for port, bindings in ports.publish([text]).items():
            for binding in bindings:
                _remove(context, name, port, binding)
    return 0


def _remove(context: Context, name: str, port: str, binding: dict[str, str]) -> None:
    host = binding["HostPort"]
    if host and not host.isdecimal():
        raise UsageError(f"invalid port {host}:{port}: name one host port", "port rm")
    query = {"port": port, "ip": binding["HostIp"] or None, "host": host or None}
    answer = context.delete(f"/bothy/containers/{path_part(name)}/ports", query)
    for gone in answer["Ports"]:
        out(_line(gone))


def _line(port: dict[str, Any]) -> str:
    """As `docker port` prints it."""
    return f"{port['PrivatePort']}/{port['Type']} -> {address(port['IP'], port['PublicPort'])}"


def address(ip: str, port: int) -> str:
    """`127.0.0.1:80`, `[::]:80`."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def listing(context: Context, flags: Values) -> int:
    """One row for each published port of all workloads, or of those named."""
    from bothy.cli import tables

    wanted = {str(context.get(f"/containers/{path_part(name)}/json")["Id"]) for name in flags.args}
    found = [port for port in context.get("/bothy/networks/doctor")["Ports"] if not wanted or port["Workload"] in wanted]
    tables.show([row(port) for port in found], COLUMNS, form=flags.text("format"))
    return 0


def row(port: dict[str, Any]) -> dict[str, Any]:
    """Fields for `--format`, of a port that the doctor tells of."""
    return {
        "ID": port["Workload"][:12],
        "Name": port["Name"] or port["Workload"][:12],
        "Port": f"{port['Port']}/{port['Protocol']}",
        "Address": address(port["HostIp"], port["HostPort"]),
        "Reach": REACH.get(port["Reach"], port["Reach"]),
        "At": ", ".join(port["At"]),
        "Target": port["Target"],
    }


def doctor(context: Context, flags: Values) -> int:
    """What is published and who reaches it, and what is wrong with the networks. The exit code is 1 if anything is."""
    found = context.get("/bothy/networks/doctor")
    problems: list[dict[str, Any]] = found["Problems"]
    if flags.text("format") == "json":
        from bothy import quickjson

        out(quickjson.dumps(found))
    elif flags.given("format"):
        raise UsageError(f"unknown format {flags.text('format')!r}", "network doctor", "--format takes json")
    else:
        _tell(found)
    return int(any(problem["Level"] == "error" for problem in problems))


def _tell(found: dict[str, Any]) -> None:
    from bothy.cli import tables

    if found["Ports"]:
        tables.show([row(port) for port in found["Ports"]], COLUMNS)
    else:
        out("No port is published: what runs is reached from this host and from its own networks only.")
    for problem in found["Problems"]:
        out(f"\n{problem['Level']}: {problem['About']}: {problem['Message']}")
        if problem["Hint"]:
            out(f"  {problem['Hint']}")
    if not found["Problems"]:
        out("\nNothing is wrong with the networks.")


COMMANDS = {
    "port add": Command(
        "port add",
        "Publish more ports of a workload, at once if it runs",
        add,
        arguments="WORKLOAD [[IP:]HOST-PORT:]PORT[/PROTOCOL]…",
        least=2,
        most=-1,
        dynamic="containers",
        notes="It is kept: the workload has these ports whenever it is started again.",
        examples=(("bothy port add web 127.0.0.1:8080:80", "From now on"),),
    ),
    "port rm": Command(
        "port rm",
        "Publish ports of a workload no more",
        remove,
        arguments="WORKLOAD [[IP:]HOST-PORT:]PORT[/PROTOCOL]…",
        least=2,
        most=-1,
        dynamic="containers",
        examples=(("bothy port rm web 80", "Wherever port 80 of it is published"), ("bothy port rm web 8080:80", "Only there")),
    ),
    "port ls": Command(
        "port ls",
        "List published ports and who reaches them",
        listing,
        arguments="[WORKLOAD…]",
        most=-1,
        flags=(("format", "", "text", "format", "table, json or a template"),),
        dynamic="running",
        notes="Fields for --format: ID Name Port Address Reach At Target.",
        examples=(("bothy port ls", "Of all workloads"),),
    ),
    "network doctor": Command(
        "network doctor",
        "Tell what is published to whom, and what is wrong with the networks",
        doctor,
        flags=(("format", "", "text", "format", "json"),),
        notes="The exit code is 1 if something has to be put right.",
        examples=(("bothy network doctor", "When a port can not be reached"),),
    ),
}
