"""events: what happens in the engine, as it happens."""

from __future__ import annotations

import sys
import time

from bothy.cli.context import Context, filters_query, out
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def events(context: Context, flags: Values) -> int:
    """Print each event when it comes, until Ctrl-C or --until."""
    from bothy.cli import human

    query: dict[str, Any] = {"filters": filters_query(flags.many("filter")) or None}
    for flag in ("since", "until"):
        if flags.given(flag):
            query[flag] = human.moment(flags.text(flag), flag)
    form = flags.text("format")
    template = None
    if form and form != "json":
        from bothy.cli.templates import Template

        template = Template(form)
    for event in context.client.request("GET", "/events", query).lines():
        if template is not None:
            out(template.render(event))
        elif form == "json":
            from bothy import quickjson

            out(quickjson.dumps(event))
        else:
            out(line(event))
        sys.stdout.flush()
    return 0


def line(event: dict[str, Any]) -> str:
    """`2026-01-31T12:00:00.123456789+01:00 container start 4f… (image=busybox, name=web)`, as Docker's."""
    nanoseconds = int(event.get("timeNano") or 0)
    local = time.localtime(nanoseconds // 1_000_000_000)
    zone = time.strftime("%z", local)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nanoseconds % 1_000_000_000:09}{zone[:3]}:{zone[3:]}"
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    told = ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes))
    return f"{stamp} {event.get('Type')} {event.get('Action')} {actor.get('ID')}{f' ({told})' if told else ''}"


COMMANDS = {
    "events": Command(
        "events",
        "Print what happens in the engine, as it happens",
        events,
        flags=(
            ("filter", "f", "list", "key=value", "Only those: type, event, container, image, label, volume, network"),
            ("format", "", "text", "format", "json or a template"),
            ("since", "", "text", "time", "Begin with what happened since: 10m, or 2026-01-31T12:00:00Z"),
            ("until", "", "text", "time", "End at this time"),
        ),
        examples=(
            ("bothy events -f event=die --format '{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}'", "Who ends, and how"),
            ("bothy events --since 10m --until 0s", "The last ten minutes, without waiting"),
        ),
    ),
}
