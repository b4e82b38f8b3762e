"""info, version, system df and system prune: the engine as a whole."""

from __future__ import annotations

import sys

from bothy.cli.context import Context, filters_query, out
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INFO = (
    ("Name", "Name"),
    ("Server version", "ServerVersion"),
    ("Root folder", "DockerRootDir"),
    ("Accelerator", "Accelerator"),
    ("Containers", "Containers"),
    ("  Running", "ContainersRunning"),
    ("  Paused", "ContainersPaused"),
    ("  Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Storage driver", "Driver"),
    ("Logging driver", "LoggingDriver"),
    ("Cgroup version", "CgroupVersion"),
    ("Cgroup driver", "CgroupDriver"),
    ("Runtimes", "Runtimes"),
    ("Default runtime", "DefaultRuntime"),
    ("Security", "SecurityOptions"),
    ("Kernel", "KernelVersion"),
    ("Operating system", "OperatingSystem"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Memory", "MemTotal"),
    ("Id", "ID"),
)
DF_COLUMNS = (
    ("Type", "TYPE", 0),
    ("TotalCount", "TOTAL", 0),
    ("Active", "ACTIVE", 0),
    ("Size", "SIZE", 0),
    ("Reclaimable", "RECLAIMABLE", 0),
)


def info(context: Context, flags: Values) -> int:
    """What the engine is, a line each, or by --format."""
    answer = context.get("/info")
    if _formatted(answer, flags.text("format")):
        return 0
    from bothy.cli import human

    for title, key in INFO:
        if key in answer:
            value = human.binary_size(answer[key]) if key == "MemTotal" else _told(answer[key])
            out(f"{title}: {value}")
    for warning in answer.get("Warnings") or ():
        out(warning)
    return 0


def _told(value: Any) -> str:
    """A value on one line: `tcg (KVM does not run a payload here)`, `bothy, vm`."""
    if isinstance(value, dict):
        told = {key.lower(): item for key, item in value.items()}
        if "name" in told:
            reason = told.get("reason")
            return f"{told['name']} ({reason})" if reason else str(told["name"])
        return ", ".join(sorted(value))
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def version(context: Context, flags: Values) -> int:
    """Ours first, so that it is told also where no engine answers."""
    from bothy import __version__

    form = flags.text("format")
    if not form:
        out(f"Client: bothy {__version__}, Python {sys.version.split()[0]}")
        sys.stdout.flush()
    answer = context.get("/version")
    client = {"Version": __version__, "ApiVersion": answer.get("ApiVersion")}
    if _formatted({"Client": client, "Server": answer}, form):
        return 0
    out(f"Server: bothy {answer.get('Version')}, API {answer.get('ApiVersion')} (oldest {answer.get('MinAPIVersion')})")
    for component in answer.get("Components") or ():
        if component.get("Name") not in ("Engine", "bothy"):
            out(f"  {component.get('Name')}: {component.get('Version')}")
    out(f"  {answer.get('Os')}/{answer.get('Arch')}, kernel {answer.get('KernelVersion')}")
    return 0


def _formatted(answer: dict[str, Any], form: str) -> bool:
    """Print an answer by --format; False where there is none."""
    if not form:
        return False
    if form == "json":
        from bothy import quickjson

        out(quickjson.dumps(answer))
    else:
        from bothy.cli.templates import Template

        out(Template(form).render(answer))
    return True


def df(context: Context, flags: Values) -> int:
    """Docker's table, with a line for the templates and disks of machines."""
    from bothy.cli import human, tables

    answer = context.get("/system/df")
    rows = df_rows(answer)
    form = flags.text("format")
    tables.show([{**row, "Size": human.size(row["Size"]), "Reclaimable": _part(row)} for row in rows], DF_COLUMNS, form=form)
    if flags.on("verbose") and not form:
        _verbose(answer)
    return 0


def df_rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a kind: how many there are, how many are used, bytes, bytes that a prune would free."""
    images, containers = answer.get("Images") or [], answer.get("Containers") or []
    volumes, templates = answer.get("Volumes") or [], answer.get("Templates") or []
    running = [c for c in containers if str(c.get("State")) in ("running", "paused", "restarting")]
    idle_images = [i for i in images if not i.get("Containers")]
    idle_volumes = [v for v in volumes if not (v.get("UsageData") or {}).get("RefCount")]
    image_bytes = answer.get("LayersSize")
    if image_bytes is None:
        image_bytes = sum(i.get("Size") or 0 for i in images)
    rows = [
        _row(
            "Images",
            images,
            len(images) - len(idle_images),
            image_bytes,
            min(image_bytes, sum(i.get("Size") or 0 for i in idle_images)),
        ),
        _row("Containers", containers, len(running), _written(containers), _written([c for c in containers if c not in running])),
        _row("Volumes", volumes, len(volumes) - len(idle_volumes), _used(volumes), _used(idle_volumes)),
    ]
    if "Templates" in answer:
        told = [{key.lower(): value for key, value in t.items()} for t in templates]
        current = [t for t in told if t.get("current")]
        size = sum(t.get("size") or 0 for t in told)
        rows.append(_row("Machine templates", told, len(current), size, size - sum(t.get("size") or 0 for t in current)))
    disks = answer.get("MachineDisks")
    if isinstance(disks, list):
        size = sum(int(d.get("Size") or d.get("size") or 0) for d in disks)
        rows.append(_row("Machine disks", disks, len(disks), size, 0))
    return rows


def _row(kind: str, things: list[Any], active: int, size: int, reclaimable: int) -> dict[str, Any]:
    return {"Type": kind, "TotalCount": str(len(things)), "Active": str(active), "Size": size, "Free": reclaimable}


def _part(row: dict[str, Any]) -> str:
    from bothy.cli import human

    share = f" ({round(row['Free'] / row['Size'] * 100)}%)" if row["Size"] else ""
    return human.size(row["Free"]) + share


def _written(containers: list[dict[str, Any]]) -> int:
    return sum(c.get("SizeRw") or 0 for c in containers)


def _used(volumes: list[dict[str, Any]]) -> int:
    return sum(max(0, (v.get("UsageData") or {}).get("Size") or 0) for v in volumes)


def _verbose(answer: dict[str, Any]) -> None:
    from bothy.cli import human, tables

    out("\nImages:")
    images = answer.get("Images") or []
    cells = [
        [
            ", ".join(i.get("RepoTags") or ["<none>"]),
            i["Id"].removeprefix("sha256:")[:12],
            human.size(i.get("Size") or 0),
            str(max(0, i.get("Containers") or 0)),
        ]
        for i in images
    ]
    tables.write(cells, [("", "IMAGE", 2), ("", "ID", 0), ("", "SIZE", 0), ("", "CONTAINERS", 0)])
    out("\nContainers:")
    cells = [
        [
            c["Id"][:12],
            ",".join(n.removeprefix("/") for n in c.get("Names") or ()),
            c.get("Image") or "",
            human.size(c.get("SizeRw") or 0),
            c.get("Status") or "",
        ]
        for c in answer.get("Containers") or []
    ]
    tables.write(cells, [("", "ID", 0), ("", "NAME", 1), ("", "IMAGE", 1), ("", "SIZE", 0), ("", "STATUS", 1)])
    out("\nVolumes:")
    volumes = answer.get("Volumes") or []
    usage = [v.get("UsageData") or {} for v in volumes]
    cells = [
        [v["Name"], str(u.get("RefCount") or 0), human.size(max(0, u.get("Size") or 0))]
        for v, u in zip(volumes, usage, strict=True)
    ]
    tables.write(cells, [("", "NAME", 1), ("", "USED BY", 0), ("", "SIZE", 0)])


def prune(context: Context, flags: Values) -> int:
    """Everything that is not in use: workloads that ended, networks, images, old templates, with --volumes volumes."""
    from bothy.cli.images import deleted
    from bothy.cli.lifecycle import confirm, report

    everything = flags.on("all")
    things = ["all workloads that do not run", "all networks that no workload has"]
    things.append("all images that no workload uses" if everything else "all images without a name")
    things.append("all templates of machines that are out of date")
    if flags.on("volumes"):
        things.append("all anonymous volumes that no workload has")
    confirm("This removes " + ", ".join(things) + ".", yes=flags.on("force"))
    filters = flags.many("filter")
    query = {"filters": filters_query(filters) or None}
    freed = 0
    workloads = context.post("/containers/prune", query)
    freed += workloads.get("SpaceReclaimed") or 0
    removed = list(workloads.get("ContainersDeleted") or ())
    if flags.on("volumes"):
        answer = context.post("/volumes/prune", {"filters": filters_query([f for f in filters if f.startswith("label")]) or None})
        freed += answer.get("SpaceReclaimed") or 0
        removed += answer.get("VolumesDeleted") or ()
    removed += context.post("/networks/prune", query).get("NetworksDeleted") or ()
    dangling = f"dangling={'false' if everything else 'true'}"
    answer = context.post("/images/prune", {"filters": filters_query([dangling, *filters])})
    freed += answer.get("SpaceReclaimed") or 0
    removed += deleted(answer)
    if not filters:
        removed += [f"template: {key}" for key in context.post("/bothy/templates/prune").get("TemplatesDeleted") or ()]
    report("Removed", removed, freed)
    return 0


FORMAT = ("format", "f", "text", "template", "json, or a template: '{{.ServerVersion}}'")

COMMANDS = {
    "info": Command(
        "info",
        "Print what the engine is, what it can do here, and why",
        info,
        flags=(FORMAT,),
        examples=(("bothy info -f '{{json .Accelerator}}'", "How machines run here, and why so"),),
    ),
    "version": Command(
        "version",
        "Print the versions of bothy, of the engine and of what it uses",
        version,
        flags=(FORMAT,),
        examples=(("bothy version -f '{{.Server.Version}}'", "The engine's only"),),
    ),
    "system df": Command(
        "system df",
        "Show how much room on disk images, workloads, volumes and templates take",
        df,
        flags=(
            ("format", "", "text", "format", "table, json or a template"),
            ("verbose", "v", "bool", "", "Each thing by itself"),
        ),
        examples=(("bothy system df -v", "What is big?"),),
    ),
    "system prune": Command(
        "system prune",
        "Remove everything that is not in use",
        prune,
        flags=(
            ("all", "a", "bool", "", "Also images with a name that no workload uses"),
            ("filter", "", "list", "key=value", "Only those: until=24h, label=key[=value]"),
            ("force", "f", "bool", "", "Do not ask"),
            ("volumes", "", "bool", "", "Also anonymous volumes that no workload has"),
        ),
        examples=(("bothy system prune -f", "Nightly"),),
    ),
}
