"""inspect: everything the engine knows of a thing, as JSON or through a template."""

from __future__ import annotations

import sys

from bothy.cli.context import Context, out, path_part
from bothy.cli.errors import UsageError, tell
from bothy.cli.flags import Command, Values
from bothy.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "volume": "/volumes/{}",
    "network": "/networks/{}",
}


def inspect(context: Context, flags: Values) -> int:
    """Look for each name among all kinds of things, or those of --type."""
    kind = flags.text("type")
    if kind and kind not in PATHS:
        raise UsageError(f"invalid --type {kind!r}", "inspect", f"types are {', '.join(PATHS)}")
    return _show(context, flags, [kind] if kind else list(PATHS))


def _one(kind: str) -> Any:
    def handler(context: Context, flags: Values) -> int:
        return _show(context, flags, [kind])

    return handler


def _show(context: Context, flags: Values, kinds: list[str]) -> int:
    """Print what was found; 1 if a name was not. The documents of the others are printed all the same, as Docker does."""
    form = flags.text("format")
    template = None
    if form and form != "json":
        from bothy.cli.templates import Template

        template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    found, missing = [], []
    for name in flags.args:
        try:
            found.append(find(context, name, kinds, size=flags.on("size")))
        except NotFound as exc:
            missing.append(exc)
    if template is not None:
        for document in found:
            out(template.render(document))
    elif form == "json":
        from bothy import quickjson

        for document in found:
            out(quickjson.dumps(document))
    else:
        import json

        out(json.dumps(found, indent=4, ensure_ascii=False))
    sys.stdout.flush()
    for failure in missing:
        tell(failure.message, failure.hint)
    return 1 if missing else 0


def find(context: Context, name: str, kinds: list[str], *, size: bool = False) -> Any:
    """The document of the first kind of thing that has the name. Raises NotFound."""
    failure: NotFound | None = None
    for kind in kinds:
        try:
            return context.get(PATHS[kind].format(path_part(name)), {"size": size} if kind == "container" else None)
        except NotFound as exc:
            failure = failure or exc
    if len(kinds) > 1 or failure is None:
        raise NotFound(f"there is no {', '.join(kinds[:-1])} or {kinds[-1]} {name!r}")
    raise failure


FORMAT = ("format", "f", "text", "template", "json, or a template: '{{.State.Status}}', '{{json .Config}}'")
SIZE = ("size", "s", "bool", "", "With sizes")
NOTES = (
    "Templates are a part of Go's: fields (.State.Status), index, json, len, join, printf, if, range, with, eq and the like. "
    "A field that is not there is an error."
)


def _command(kind: str, name: str, example: tuple[str, str]) -> Command:
    return Command(
        name,
        f"Print everything about {kind}s",
        _one(kind),
        arguments=f"{kind.upper()}…",
        least=1,
        most=-1,
        flags=(FORMAT, SIZE) if kind == "container" else (FORMAT,),
        dynamic=f"{kind}s",
        notes=NOTES,
        examples=(example,),
    )


COMMANDS = {
    "inspect": Command(
        "inspect",
        "Print everything about workloads, images, volumes or networks",
        inspect,
        arguments="NAME…",
        least=1,
        most=-1,
        flags=(FORMAT, SIZE, ("type", "", "text", "kind", "Only among container, image, volume or network")),
        dynamic="containers",
        notes=NOTES,
        examples=(
            ("bothy inspect -f '{{.State.ExitCode}}' job", "One value"),
            ("bothy inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web", "Its address"),
        ),
    ),
    "container inspect": _command("container", "container inspect", ("bothy container inspect web", "All of it")),
    "image inspect": _command(
        "image", "image inspect", ("bothy image inspect -f '{{json .Config.Env}}' busybox", "One part, as JSON")
    ),
    "volume inspect": _command("volume", "volume inspect", ("bothy volume inspect -f '{{.Mountpoint}}' data", "Where it is")),
    "network inspect": _command("network", "network inspect", ("bothy network inspect bridge", "Addresses and who has them")),
}
