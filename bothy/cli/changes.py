"""diff and commit: what a workload has changed in its root, and an image of that."""

from __future__ import annotations

from bothy.cli.context import Context, out, path_part
from bothy.cli.flags import Command, Values
from bothy.cli.images import split

_LETTERS = "CAD"  # Docker's: changed, added, deleted


def diff(context: Context, flags: Values) -> int:
    """One line a file: what was done, and the path."""
    for change in context.get(f"/containers/{path_part(flags.args[0])}/changes") or []:
        out(f"{_LETTERS[change['Kind']]} {change['Path']}")
    return 0


def commit(context: Context, flags: Values) -> int:
    """Prints the id of the image."""
    repository, tag = split(flags.args[1]) if len(flags.args) > 1 else ("", "")
    query = {
        "container": flags.args[0],
        "repo": repository or None,
        "tag": tag or None,
        "author": flags.text("author") or None,
        "comment": flags.text("message") or None,
        "changes": flags.many("change"),
        "pause": "1" if not flags.given("pause") or flags.on("pause") else "0",
    }
    out(str(context.post("/commit", query)["Id"]))
    return 0


COMMANDS = {
    "diff": Command(
        "diff",
        "List what a container or machine has changed in its root file system",
        diff,
        arguments="CONTAINER",
        least=1,
        most=1,
        dynamic="containers",
        notes="A: added, C: changed, D: deleted. What is in volumes and other mounts is not of the root file system.",
        examples=(("bothy diff web", "Since it was created"),),
    ),
    "commit": Command(
        "commit",
        "Make an image of a container or machine as it is now",
        commit,
        arguments="CONTAINER [NAME[:TAG]]",
        least=1,
        most=2,
        flags=(
            ("author", "a", "text", "text", "Who made it"),
            (
                "change",
                "c",
                "list",
                "instruction",
                "Dockerfile instruction to apply: CMD, ENTRYPOINT, ENV, USER, …",
            ),
            ("message", "m", "text", "text", "What it is, for the image's history"),
            ("pause", "p", "bool", "", "Have it stand still meanwhile (default: true)"),
        ),
        dynamic="containers",
        notes="What is in volumes and other mounts does not become part of the image.",
        examples=(("bothy commit -c 'CMD [\"nginx\"]' web web:tuned", "With another program to run"),),
    ),
}
