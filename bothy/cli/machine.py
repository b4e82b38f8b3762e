"""machine template ls, rm and prune: machines that were booted once, of which every `run --vm` is a clone."""

from __future__ import annotations

from bothy.cli.context import Context, each, out, path_part
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (
    ("Key", "TEMPLATE", 0),
    ("CPUs", "CPUS", 0),
    ("Memory", "MEMORY", 0),
    ("Accelerator", "ACCELERATOR", 0),
    ("Kernel", "KERNEL", 1),
    ("CreatedSince", "CREATED", 0),
    ("UsedSince", "USED", 0),
    ("Size", "SIZE", 0),
    ("Current", "CURRENT", 0),
)


def listing(context: Context, flags: Values) -> int:
    """One row for each template."""
    from bothy.cli import tables

    rows = [row(template, is_full=flags.on("no-trunc")) for template in context.get("/bothy/templates")]
    tables.show(rows, COLUMNS, form=flags.text("format"), ids="Key" if flags.on("quiet") else "")
    return 0


def row(template: dict[str, Any], *, is_full: bool) -> dict[str, Any]:
    """The fields for `--format`, of an entry of `GET /bothy/templates`."""
    from bothy.cli import human

    told = {key.lower(): value for key, value in template.items()}
    return {
        "Key": str(told["key"]) if is_full else str(told["key"])[:12],
        "CPUs": str(told.get("vcpus") or ""),
        "Memory": human.binary_size(told.get("memory") or 0),
        "Accelerator": str(told.get("accelerator") or ""),
        "Kernel": str(told.get("kernel") or ""),
        "CreatedSince": human.ago(_seconds(told.get("created"))),
        "UsedSince": human.ago(_seconds(told.get("used"))),
        "Size": human.size(told.get("size") or 0),
        "Current": "yes" if told.get("current") else "no",
    }


def _seconds(moment: Any) -> float:
    """Seconds since the epoch of a number or a text."""
    from bothy.cli import human

    return human.epoch(moment) if isinstance(moment, str) else float(moment or 0)


def remove(context: Context, flags: Values) -> int:
    """Remove each template."""
    return each(flags.args, lambda key: context.delete(f"/bothy/templates/{path_part(key)}"))


def prune(context: Context, flags: Values) -> int:
    """Remove the templates that no machine needs, when that was confirmed; prints their keys."""
    from bothy.cli.lifecycle import confirm

    confirm("All templates that no machine needs will be removed.", yes=flags.on("force"))
    removed = context.post("/bothy/templates/prune").get("TemplatesDeleted") or []
    for key in removed:
        out(str(key))
    if not removed:
        out("nothing to remove")
    return 0


COMMANDS = {
    "machine template ls": Command(
        "machine template ls",
        "List templates of machines",
        listing,
        flags=(
            ("format", "", "text", "format", "table, json or a template"),
            ("no-trunc", "", "bool", "", "Do not shorten keys"),
            ("quiet", "q", "bool", "", "Keys only"),
        ),
        notes="A template is made by the first run --vm with its number of CPUs and amount of memory, and made anew when anything "
        "it was made of has changed (CURRENT says whether the next run would use it). Fields for --format: Key CPUs Memory "
        "Accelerator Kernel CreatedSince UsedSince Size Current.",
        examples=(("bothy machine template ls", "What they are made of, and how big they are"),),
    ),
    "machine template rm": Command(
        "machine template rm",
        "Remove templates",
        remove,
        arguments="TEMPLATE…",
        least=1,
        most=-1,
        dynamic="templates",
        examples=(("bothy machine template rm 0a1b2c3d4e5f", "The next run --vm that needs it makes it again"),),
    ),
    "machine template prune": Command(
        "machine template prune",
        "Remove templates that no machine needs",
        prune,
        flags=(("force", "f", "bool", "", "Do not ask"),),
        examples=(("bothy machine template prune -f", "Their room on disk is free again"),),
    ),
}
