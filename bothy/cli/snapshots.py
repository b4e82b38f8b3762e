"""volume snapshot create, ls, rm and restore; volume clone, rename and resize. A snapshot is named VOLUME@SNAPSHOT."""

from __future__ import annotations

from bothy.cli.context import Context, each, out, path_part
from bothy.cli.errors import UsageError, note
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (
    ("Snapshot", "SNAPSHOT", 1), ("CreatedSince", "CREATED", 0), ("Size", "SIZE", 0), ("Quota", "QUOTA", 0),
    ("Atomic", "ATOMIC", 0),
)  # fmt: skip
_HINT = "snapshots are named VOLUME@SNAPSHOT, bothy volume snapshot ls lists them"


def divided(text: str, verb: str) -> tuple[str, str]:
    """VOLUME@SNAPSHOT as a pair. Raises UsageError."""
    volume, _, snapshot = text.partition("@")
    if not volume or not snapshot:
        raise UsageError(f"{text!r} is not the name of a snapshot", verb, _HINT)
    return volume, snapshot


def create(context: Context, flags: Values) -> int:
    """Keep a volume as it is now; prints the snapshot's name."""
    volume, at, name = flags.args[0].partition("@")
    if at and len(flags.args) > 1:
        raise UsageError("the snapshot has two names", "volume snapshot create", f"{flags.args[0]} is enough")
    if len(flags.args) > 1:
        name = flags.args[1]
    taken = context.post(f"/bothy/volumes/{path_part(volume)}/snapshots", body={"Name": name})
    out(f"{taken['Volume']}@{taken['Name']}")
    _warn(taken, volume)
    return 0


def _warn(answer: dict[str, Any], volume: str) -> None:
    if not answer.get("Atomic", True):
        note(
            f"warning: {volume} was in use: files that were written meanwhile may not fit together\n"
            "  hint: stop or pause the workloads that write to it; a volume with a quota (--opt size=…) need not be at rest"
        )


def listing(context: Context, flags: Values) -> int:
    """One row for each snapshot."""
    from bothy.cli import tables

    found = context.get("/bothy/snapshots", {"volume": flags.args[0] if flags.args else None})
    tables.show([row(s) for s in found], COLUMNS, form=flags.text("format"), ids="Snapshot" if flags.on("quiet") else "")
    return 0


def row(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Fields for `--format`, of an entry of `GET /bothy/snapshots`."""
    from bothy.cli import human

    return {
        "Snapshot": f"{snapshot['Volume']}@{snapshot['Name']}",
        "Volume": snapshot["Volume"],
        "Name": snapshot["Name"],
        "CreatedAt": snapshot["CreatedAt"],
        "CreatedSince": human.ago(human.epoch(snapshot["CreatedAt"])),
        "Size": human.size(snapshot["Size"]),
        "Quota": human.binary_size(snapshot["Quota"]) if snapshot["Quota"] else "-",
        "Atomic": "yes" if snapshot["Atomic"] else "no",
    }


def remove(context: Context, flags: Values) -> int:
    """Remove each; its volume stays as it is."""

    def act(text: str) -> None:
        volume, snapshot = divided(text, "volume snapshot rm")
        context.delete(f"/bothy/volumes/{path_part(volume)}/snapshots/{path_part(snapshot)}")

    return each(flags.args, act)


def restore(context: Context, flags: Values) -> int:
    """Make the volume what it was then."""
    from bothy.cli.lifecycle import confirm

    volume, snapshot = divided(flags.args[0], "volume snapshot restore")
    confirm(f"What is in volume {volume} now will be lost.", yes=flags.on("force"))
    context.post(f"/bothy/volumes/{path_part(volume)}/snapshots/{path_part(snapshot)}/restore")
    out(volume)
    return 0


def clone(context: Context, flags: Values) -> int:
    """A new volume with what is in another, or in a snapshot; prints its name."""
    from bothy.cli import values

    source, new = flags.args
    volume, _, snapshot = source.partition("@")
    body = {"Name": new, "Snapshot": snapshot, "Labels": values.labels(flags.many("label"), [])}
    made = context.post(f"/bothy/volumes/{path_part(volume)}/clone", body=body)
    out(str(made["Name"]))
    _warn(made, volume)
    return 0


def rename(context: Context, flags: Values) -> int:
    """Another name for a volume; its snapshots come along."""
    old, new = flags.args
    context.post(f"/bothy/volumes/{path_part(old)}/rename", body={"Name": new})
    return 0


def resize(context: Context, flags: Values) -> int:
    """More room in a volume with a quota."""
    name, size = flags.args
    context.post(f"/bothy/volumes/{path_part(name)}/resize", body={"Size": size})
    out(name)
    return 0


COMMANDS = {
    "volume snapshot create": Command(
        "volume snapshot create",
        "Keep a volume as it is now; prints the snapshot's name",
        create,
        arguments="VOLUME [SNAPSHOT]",
        least=1,
        most=2,
        dynamic="volumes",
        notes="Also without the word create. A volume with a quota (--opt size=…) may be in use meanwhile: its snapshot is what a "
        "power failure at that moment would have left. Of another one the files are copied one after the other; it is told if "
        "somebody could write to it meanwhile.",
        examples=(
            ("bothy volume snapshot data before-upgrade", "Now it may go wrong: restore data@before-upgrade"),
            ("bothy volume snapshot data", "The time is its name"),
        ),
    ),
    "volume snapshot ls": Command(
        "volume snapshot ls",
        "List snapshots of volumes",
        listing,
        arguments="[VOLUME]",
        most=1,
        flags=(
            ("format", "", "text", "format", "table, json or a template"),
            ("quiet", "q", "bool", "", "Names only"),
        ),
        dynamic="volumes",
        notes="Fields for --format: Snapshot Volume Name CreatedAt CreatedSince Size Quota Atomic. Sizes are what the files take "
        "on disk; blocks that are shared with others are counted too.",
        examples=(("bothy volume snapshot ls data", "Those of one volume"),),
    ),
    "volume snapshot rm": Command(
        "volume snapshot rm",
        "Remove snapshots",
        remove,
        arguments="VOLUME@SNAPSHOT…",
        least=1,
        most=-1,
        dynamic="snapshots",
        examples=(("bothy volume snapshot rm data@monday", "The volume stays as it is"),),
    ),
    "volume snapshot restore": Command(
        "volume snapshot restore",
        "Make a volume what it was when the snapshot was taken",
        restore,
        arguments="VOLUME@SNAPSHOT",
        least=1,
        most=1,
        flags=(("force", "f", "bool", "", "Do not ask"),),
        dynamic="snapshots",
        examples=(("bothy volume snapshot restore data@monday", "Refused while a workload that has it runs"),),
    ),
    "volume clone": Command(
        "volume clone",
        "Make a new volume with what is in another, or in a snapshot",
        clone,
        arguments="VOLUME[@SNAPSHOT] NEW",
        least=2,
        most=2,
        flags=(("label", "", "list", "key=value", "Set a label; those of the other are taken along"),),
        dynamic="volumes",
        examples=(("bothy volume clone data@monday test-data", "Try something with Monday's data"),),
    ),
    "volume rename": Command(
        "volume rename",
        "Give a volume another name",
        rename,
        arguments="VOLUME NEW",
        least=2,
        most=2,
        dynamic="volumes",
        examples=(("bothy volume rename data old-data", "Refused while a workload has it"),),
    ),
    "volume resize": Command(
        "volume resize",
        "Give a volume with a quota more room",
        resize,
        arguments="VOLUME SIZE",
        least=2,
        most=2,
        dynamic="volumes",
        notes="It may be in use, where the kernel lets bothy grow a mounted file system; where not, that is told.",
        examples=(("bothy volume resize data 20g", "It was made with --opt size=10g"),),
    ),
}
