"""volume create, ls, rm and prune."""

from __future__ import annotations

from bothy.cli.context import Context, each, filters_query, out, path_part
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (("Driver", "DRIVER", 0), ("Name", "VOLUME NAME", 1))


def create(context: Context, flags: Values) -> int:
    """Make a volume; prints its name, which is the engine's choice if none was given."""
    from bothy.cli import values

    name = flags.args[0] if flags.args else flags.text("name")
    body = {
        "Name": name,
        "Driver": flags.text("driver", "local"),
        "DriverOpts": values.strict_pairs(flags.many("opt"), "opt"),
        "Labels": values.labels(flags.many("label"), []),
    }
    out(str(context.post("/volumes/create", body=body)["Name"]))
    return 0


def listing(context: Context, flags: Values) -> int:
    """One row for each volume."""
    from bothy.cli import tables

    found = context.get("/volumes", {"filters": filters_query(flags.many("filter")) or None}).get("Volumes") or []
    rows = [row(volume) for volume in found]
    tables.show(rows, COLUMNS, form=flags.text("format"), ids="Name" if flags.on("quiet") else "")
    return 0


def row(volume: dict[str, Any]) -> dict[str, Any]:
    """Docker's fields for `--format`, of an entry of `GET /volumes`."""
    labels = volume.get("Labels") or {}
    return {
        "Driver": volume.get("Driver") or "local",
        "Name": volume["Name"],
        "Mountpoint": volume.get("Mountpoint") or "",
        "Scope": volume.get("Scope") or "local",
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
    }


def remove(context: Context, flags: Values) -> int:
    """Remove each volume, with what is in it."""
    return each(flags.args, lambda name: context.delete(f"/volumes/{path_part(name)}", {"force": flags.on("force")}))


def prune(context: Context, flags: Values) -> int:
    """Remove volumes that no workload has, when that was confirmed."""
    from bothy.cli.lifecycle import confirm, report

    everything = flags.on("all")
    which = "volumes" if everything else "anonymous volumes"
    confirm(f"All {which} that no workload has will be removed.", yes=flags.on("force"))
    filters = [*flags.many("filter"), *(["all=true"] if everything else [])]
    answer = context.post("/volumes/prune", {"filters": filters_query(filters) or None})
    report("Removed volumes", answer.get("VolumesDeleted"), answer.get("SpaceReclaimed"))
    return 0


COMMANDS = {
    "volume create": Command(
        "volume create",
        "Make a volume; prints its name",
        create,
        arguments="[NAME]",
        most=1,
        flags=(
            ("driver", "d", "text", "name", "Driver: local"),
            ("label", "", "list", "key=value", "Set a label"),
            ("name", "", "text", "name", "The same as the argument"),
            ("opt", "o", "list", "key=value", "Driver option"),
        ),
        examples=(("bothy volume create data", "bothy run -v data:/data … mounts it (and makes it if it is not there)"),),
    ),
    "volume ls": Command(
        "volume ls",
        "List volumes",
        listing,
        flags=(
            ("filter", "f", "list", "key=value", "Only those: name, label, dangling, driver"),
            ("format", "", "text", "format", "table, json or a template"),
            ("quiet", "q", "bool", "", "Names only"),
        ),
        notes="Fields for --format: Driver Name Mountpoint Scope Labels.",
        examples=(("bothy volume ls -f dangling=true", "Those that no workload has"),),
    ),
    "volume rm": Command(
        "volume rm",
        "Remove volumes with everything in them",
        remove,
        arguments="VOLUME…",
        least=1,
        most=-1,
        flags=(("force", "f", "bool", "", "It is no failure if there is none"),),
        dynamic="volumes",
        examples=(("bothy volume rm data", "Refused while a workload has it"),),
    ),
    "volume prune": Command(
        "volume prune",
        "Remove anonymous volumes that no workload has",
        prune,
        flags=(
            ("all", "a", "bool", "", "Those with a name too"),
            ("filter", "", "list", "key=value", "Only those: label=key[=value]"),
            ("force", "f", "bool", "", "Do not ask"),
        ),
        examples=(("bothy volume prune -af", "Keep only what is in use"),),
    ),
}
