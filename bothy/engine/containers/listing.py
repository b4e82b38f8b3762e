"""ps: which workloads, by Docker's filters; and how much they have written."""

from __future__ import annotations

import asyncio

from bothy.engine import filters as matching
from bothy.engine import ports
from bothy.engine.containers.remove import written
from bothy.engine.hall import Hall
from bothy.engine.model import Status, Wall, Workload
from bothy.errors import BothyError, Invalid, NotFound

KNOWN_FILTERS = (
    "ancestor", "before", "expose", "exited", "health", "id", "is-task", "isolation", "label", "name", "network", "publish",
    "since", "status", "volume", "runtime",
)  # fmt: skip
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


def listed(hall: Hall, *, everything: bool, limit: int, filters: matching.Filters) -> list[Workload]:
    """The workloads that match, newest first; without `everything` those that are up, with `limit` that many of any state.

    Raises Invalid for an unknown filter or value, NotFound for `before` or `since` a workload that is not there.
    """
    matching.check(filters, KNOWN_FILTERS)
    for state in filters.get("status", ()):
        if state not in _STATES:
            raise Invalid(f"invalid filter 'status={state}'", hint=f"known states: {', '.join(_STATES)}")
    ancestors = _images(hall, filters)
    bounds = {word: [hall.workloads.find(ref).record.created for ref in filters.get(word, ())] for word in ("before", "since")}
    found = sorted((live.record for live in hall.workloads), key=lambda record: record.created, reverse=True)
    if limit > 0 and not filters:
        return found[:limit]
    if not everything and not limit:
        found = [r for r in found if r.status.is_up]
    found = [r for r in found if _matches(r, filters) and _is_descendant(r, filters, ancestors) and _is_between(r, bounds)]
    return found[:limit] if limit > 0 else found


def _matches(record: Workload, filters: matching.Filters) -> bool:
    return (
        matching.labels_match(filters, record.config.labels)
        and _any(filters, "id", lambda v: record.id.startswith(v))
        and (not filters.get("name") or matching.pattern_matches(filters["name"], record.name, f"/{record.name}"))
        and _any(filters, "status", lambda v: state(record) == v)
        and _any(filters, "exited", lambda v: record.status is Status.EXITED and str(record.exit_code) == _number(v))
        and _any(filters, "network", lambda v: v == record.host_config.network_mode or any(v in e for e in _endpoints(record)))
        and _any(filters, "volume", lambda v: any(v in (m.name, m.destination, m.source) for m in record.mounts))
        and _any(filters, "runtime", lambda v: v == ("vm" if record.wall is Wall.VM else "bothy"))
        and _any(filters, "health", lambda v: v == (record.health.status if record.health else "none"))
        and _any(filters, "is-task", lambda v: v.lower() in ("0", "false"))
        and _any(filters, "publish", lambda v: bool(_numbers(v) & _bound(record)))
        and _any(filters, "expose", lambda v: bool(_numbers(v) & set(ports.exposed(record.config.exposed_ports))))
    )


def state(record: Workload) -> str:
    """Docker has no word for a start in progress."""
    return "created" if record.status is Status.STARTING else record.status.value


def _any(filters: matching.Filters, word: str, test: matching.Test) -> bool:
    values = filters.get(word)
    return not values or any(test(value) for value in values)


def _endpoints(record: Workload) -> list[tuple[str, str]]:
    return [(wanted.network_id if wanted else "", name) for name, wanted in record.networking.endpoints_config.items()]


def _number(text: str) -> str:
    if not text.lstrip("-").isdecimal():
        raise Invalid(f"invalid filter 'exited={text}'", hint="use a number")
    return str(int(text))


def _numbers(text: str) -> set[tuple[int, str]]:
    numbers, protocol = ports.parse(text)
    return {(number, protocol) for number in numbers}


def _bound(record: Workload) -> set[tuple[int, str]]:
    return {(p.container_port, p.protocol) for p in record.ports} | {(p.host_port, p.protocol) for p in record.ports}


def _images(hall: Hall, filters: matching.Filters) -> set[str]:
    """The ids of the images that `ancestor` names; names that are none match by text alone."""
    found = set()
    for ref in filters.get("ancestor", ()):
        try:
            found.add(hall.images.resolve(ref).id)
        except BothyError:
            continue
    return found


def _is_descendant(record: Workload, filters: matching.Filters, ancestors: set[str]) -> bool:
    wanted = filters.get("ancestor")
    return not wanted or record.image in ancestors or record.image_name in wanted


def _is_between(record: Workload, bounds: dict[str, list[str]]) -> bool:
    return all(record.created < at for at in bounds["before"]) and all(record.created > at for at in bounds["since"])


async def sizes(hall: Hall) -> dict[str, tuple[int, int]]:
    """Bytes that each workload has written, and those with its image. Takes as long as there are files."""
    found = {}
    for live in hall.workloads:
        folder = hall.paths.container(live.id)
        own = await asyncio.to_thread(written, str(folder / "upper" if live.record.wall is Wall.CONTAINER else folder / "disk.raw"))
        try:
            image = hall.images.resolve(live.record.image).size
        except NotFound:
            image = 0
        found[live.id] = (own, own + image)
    return found
