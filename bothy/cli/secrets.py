"""secret create, ls, inspect and rm; and the reading of `--secret`."""

from __future__ import annotations

import sys

from bothy.cli.context import Context, each, filters_query, out, path_part
from bothy.cli.errors import Failure, UsageError
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (
    ("ID", "ID", 0),
    ("Name", "NAME", 0),
    ("CreatedAt", "CREATED", 0),
    ("UpdatedAt", "UPDATED", 0),
    ("Workloads", "WORKLOADS", 0),
)
_HINT = "--secret takes NAME[,target=PATH,uid=ID,gid=ID,mode=0444]"


def mount(text: str) -> dict[str, Any]:
    """An entry of HostConfig.Secrets, of `NAME[,target=…,uid=…,gid=…,mode=…]`. Raises UsageError."""
    found: dict[str, Any] = {}
    for number, part in enumerate(text.split(",")):
        key, equals, value = part.partition("=")
        if not equals and number == 0:
            key, value = "source", part
        key = {"src": "source", "id": "source", "dst": "target", "destination": "target"}.get(key, key)
        if key in ("source", "target") and value:
            found[key.title()] = value
        elif key in ("uid", "gid") and value.isdecimal():
            found[key.upper()] = int(value)
        elif key == "mode" and value and not value.strip("01234567"):
            found["Mode"] = int(value, 8)
        elif key == "type":
            if value not in ("mount", "file"):
                raise UsageError(f"invalid secret {text!r}: it can only be a file", hint="a variable would be seen by inspect")
        else:
            raise UsageError(f"invalid secret {text!r}", hint=_HINT)
    if "Source" not in found:
        raise UsageError(f"invalid secret {text!r}: the name is missing", hint=_HINT)
    return found


def create(context: Context, flags: Values) -> int:
    """Store a file's content, or what comes on stdin, under a name; prints the id."""
    import base64

    from bothy.cli import values

    name, path = flags.args
    try:
        if path == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                content = file.read()
    except OSError as exc:
        raise Failure(f"can not read {path!r}: {exc.strerror}") from None
    body = {
        "Name": name,
        "Data": base64.b64encode(content).decode(),
        "Labels": values.labels(flags.many("label"), []),
        "Replace": flags.on("replace"),
    }
    out(str(context.post("/bothy/secrets/create", body=body)["ID"]))
    return 0


def listing(context: Context, flags: Values) -> int:
    """One row for each."""
    from bothy.cli import tables

    found = context.get("/bothy/secrets", {"filters": filters_query(flags.many("filter")) or None}) or []
    rows = [row(secret) for secret in found]
    tables.show(rows, COLUMNS, form=flags.text("format"), ids="ID" if flags.on("quiet") else "")
    return 0


def row(secret: dict[str, Any]) -> dict[str, Any]:
    """The fields for `--format`."""
    labels = secret["Spec"].get("Labels") or {}
    return {
        "ID": secret["ID"],
        "Name": secret["Spec"]["Name"],
        "CreatedAt": secret["CreatedAt"].partition(".")[0].replace("T", " "),
        "UpdatedAt": secret["UpdatedAt"].partition(".")[0].replace("T", " "),
        "Workloads": ",".join(secret.get("Workloads") or ()),
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
    }


def inspect(context: Context, flags: Values) -> int:
    """Everything that is known of each, but for what it says."""
    import json

    found = [context.get(f"/bothy/secrets/{path_part(name)}") for name in flags.args]
    out(json.dumps(found, indent=4))
    return 0


def remove(context: Context, flags: Values) -> int:
    """Remove each."""
    return each(flags.args, lambda name: context.delete(f"/bothy/secrets/{path_part(name)}"))


COMMANDS = {
    "secret create": Command(
        "secret create",
        "Store a secret; prints its id",
        create,
        arguments="NAME FILE|-",
        least=2,
        most=2,
        flags=(
            ("label", "l", "list", "key=value", "Set a label"),
            ("replace", "", "bool", "", "Also if there is one of that name: what starts from now on finds the new content"),
        ),
        notes="It is kept below the engine's root folder, for root's eyes only, and not encrypted. "
        "run --secret NAME shows it to a workload as the file /run/secrets/NAME, in memory.",
        examples=(
            ("bothy secret create db-password password.txt", "Then: bothy run --secret db-password …"),
            ("pwgen 32 1 | bothy secret create --replace db-password -", "Another one, for those that start from now on"),
        ),
    ),
    "secret ls": Command(
        "secret ls",
        "List secrets, without what they say",
        listing,
        flags=(
            ("filter", "f", "list", "key=value", "Only those: id, name, label"),
            ("format", "", "text", "format", "table, json or a template"),
            ("quiet", "q", "bool", "", "Ids only"),
        ),
        notes="Fields for --format: ID Name CreatedAt UpdatedAt Workloads Labels.",
        examples=(("bothy secret ls -f label=app=shop", "Those with a label"),),
    ),
    "secret inspect": Command(
        "secret inspect",
        "Show secrets as JSON, without what they say",
        inspect,
        arguments="SECRET…",
        least=1,
        most=-1,
        dynamic="secrets",
        examples=(("bothy secret inspect db-password", "When it was made, and who is given it"),),
    ),
    "secret rm": Command(
        "secret rm",
        "Remove secrets",
        remove,
        arguments="SECRET…",
        least=1,
        most=-1,
        dynamic="secrets",
        examples=(("bothy secret rm db-password", "Refused while there is a workload that is given it"),),
    ),
}
