"""images, rmi, tag, image history and image prune: the images of this machine."""

from __future__ import annotations

from bothy.cli.context import Context, each, filters_query, out, path_part
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NONE = "<none>"
COLUMNS = (
    ("Repository", "REPOSITORY", 3),
    ("Tag", "TAG", 1),
    ("ID", "IMAGE ID", 0),
    ("CreatedSince", "CREATED", 0),
    ("Size", "SIZE", 0),
)
HISTORY = (
    ("ID", "IMAGE", 0),
    ("CreatedSince", "CREATED", 0),
    ("CreatedBy", "CREATED BY", 1),
    ("Size", "SIZE", 0),
    ("Comment", "COMMENT", 1),
)


def images(context: Context, flags: Values) -> int:
    """One row for each name of each image."""
    from bothy.cli import tables

    filters = [*flags.many("filter"), *(f"reference={name}" for name in flags.args)]
    found = context.get("/images/json", {"all": flags.on("all"), "filters": filters_query(filters) or None})
    rows = [row for image in found for row in image_rows(image, is_full=flags.on("no-trunc"))]
    form = flags.text("format")
    if flags.on("quiet") and form in ("", "table"):
        for name in dict.fromkeys(row["ID"] for row in rows):
            out(name)
        return 0
    digest = [("Digest", "DIGEST", 1)] if flags.on("digests") else []
    columns = [*COLUMNS[:2], *digest, *COLUMNS[2:]]
    tables.show(rows, columns, form=form, headings={"CreatedAt": "CREATED AT"})
    return 0


def image_rows(image: dict[str, Any], *, is_full: bool) -> list[dict[str, Any]]:
    """One row for each name of an image, Docker's fields."""
    from bothy.cli import human

    digests = {name.partition("@")[0]: name.partition("@")[2] for name in image.get("RepoDigests") or ()}
    containers = image.get("Containers", -1)
    rows = []
    for name in image.get("RepoTags") or [f"{NONE}:{NONE}"]:
        repository, _, tag = name.rpartition(":")
        rows.append(
            {
                "Repository": repository,
                "Tag": tag,
                "Digest": digests.get(repository, NONE),
                "ID": image["Id"] if is_full else image["Id"].removeprefix("sha256:")[:12],
                "CreatedSince": human.ago(image["Created"]),
                "CreatedAt": human.local_time(image["Created"]),
                "Size": human.size(image.get("Size") or 0),
                "Containers": "N/A" if containers < 0 else str(containers),
                "SharedSize": "N/A",
                "UniqueSize": "N/A",
                "VirtualSize": human.size(image.get("Size") or 0),
            }
        )
    return rows


def remove(context: Context, flags: Values) -> int:
    """Untag, and delete what has no name left; one line for each thing done."""
    query = {"force": flags.on("force"), "noprune": flags.on("no-prune")}

    def show(name: str) -> None:
        for step in context.delete(f"/images/{path_part(name)}", query) or ():
            for word, what in step.items():
                out(f"{word}: {what}")

    return each(flags.args, show, quiet=True)


def tag(context: Context, flags: Values) -> int:
    """Give an image one more name."""
    name, new = flags.args
    repository, label = split(new)
    context.post(f"/images/{path_part(name)}/tag", {"repo": repository, "tag": label or None})
    return 0


def split(name: str) -> tuple[str, str]:
    """(repository, tag) of a name; the tag is empty if there is none (a colon before a slash is a port)."""
    repository, colon, label = name.rpartition(":")
    return (repository, label) if colon and "/" not in label else (name, "")


def history(context: Context, flags: Values) -> int:
    """One row for each step in which an image was made, newest first."""
    from bothy.cli import human, tables

    rows = []
    is_full = flags.on("no-trunc")
    for layer in context.get(f"/images/{path_part(flags.args[0])}/history"):
        identity = str(layer.get("Id") or "<missing>")
        made_by = str(layer.get("CreatedBy") or "")
        rows.append(
            {
                "ID": identity if is_full else identity.removeprefix("sha256:")[:12],
                "CreatedSince": human.ago(layer.get("Created") or 0),
                "CreatedAt": human.local_time(layer.get("Created") or 0),
                "CreatedBy": made_by if is_full or len(made_by) < 46 else made_by[:44] + "…",
                "Size": human.size(layer.get("Size") or 0),
                "Comment": str(layer.get("Comment") or ""),
            }
        )
    tables.show(rows, HISTORY, form=flags.text("format"), ids="ID" if flags.on("quiet") else "")
    return 0


def prune(context: Context, flags: Values) -> int:
    """Remove images that no workload uses, when that was confirmed."""
    from bothy.cli.lifecycle import confirm, report

    everything = flags.on("all")
    which = "that no workload uses" if everything else "without a name that no workload uses"
    confirm(f"All images {which} will be removed.", yes=flags.on("force"))
    filters = [f"dangling={'false' if everything else 'true'}", *flags.many("filter")]
    answer = context.post("/images/prune", {"filters": filters_query(filters)})
    report("Removed images", deleted(answer), answer.get("SpaceReclaimed"))
    return 0


def deleted(answer: dict[str, Any]) -> list[str]:
    """What a prune of images did, a line each: `untagged: a:1`, `deleted: sha256:…`."""
    return [f"{word.lower()}: {what}" for step in answer.get("ImagesDeleted") or () for word, what in step.items()]


COMMANDS = {
    "images": Command(
        "images",
        "List the images of this machine",
        images,
        arguments="[NAME]",
        most=1,
        flags=(
            ("all", "a", "bool", "", "Accepted for Docker's sake: there are no intermediate images"),
            ("digests", "", "bool", "", "With digests"),
            ("filter", "f", "list", "key=value", "Only those: reference, label, dangling, before, since"),
            ("format", "", "text", "format", "table, json or a template"),
            ("no-trunc", "", "bool", "", "Do not shorten ids"),
            ("quiet", "q", "bool", "", "Ids only"),
        ),
        dynamic="images",
        notes="Fields for --format: Repository Tag Digest ID CreatedSince CreatedAt Size Containers.",
        examples=(("bothy images --format '{{.Repository}}:{{.Tag}} {{.Size}}'", "Names and sizes"),),
    ),
    "rmi": Command(
        "rmi",
        "Remove names of images, and images without a name",
        remove,
        arguments="IMAGE…",
        least=1,
        most=-1,
        flags=(
            ("force", "f", "bool", "", "Also if a stopped workload is made of it, or it has other names"),
            ("no-prune", "", "bool", "", "Accepted for Docker's sake"),
        ),
        dynamic="images",
        examples=(("bothy rmi busybox", "It can be made again: bothy image bootstrap busybox"),),
    ),
    "tag": Command(
        "tag",
        "Give an image one more name",
        tag,
        arguments="IMAGE NAME[:TAG]",
        least=2,
        most=2,
        dynamic="images",
        examples=(("bothy tag debian:bookworm base", "base:latest is the same image"),),
    ),
    "image history": Command(
        "image history",
        "List the layers of an image and how they were made",
        history,
        arguments="IMAGE",
        least=1,
        most=1,
        flags=(
            ("format", "", "text", "format", "table, json or a template"),
            ("human", "H", "bool", "", "Accepted for Docker's sake: sizes and times are for people"),
            ("no-trunc", "", "bool", "", "Do not shorten"),
            ("quiet", "q", "bool", "", "Ids only"),
        ),
        dynamic="images",
        examples=(("bothy history --no-trunc base", "With the whole commands"),),
    ),
    "image prune": Command(
        "image prune",
        "Remove images that have no name",
        prune,
        flags=(
            ("all", "a", "bool", "", "All that no workload uses, also those with a name"),
            ("force", "f", "bool", "", "Do not ask"),
            ("filter", "", "list", "key=value", "Only those: until=24h, label=key[=value]"),
        ),
        examples=(("bothy image prune -af", "Start over"),),
    ),
}
