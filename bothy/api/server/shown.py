"""What clients ask for again and again, kept as the bytes that they got last: a container inspected, a line of the list.

A record is never changed, only replaced: while it is the same object, what was made of it is right. Dashboards and SDKs inspect
every container whenever they list them, so this is most of what an engine at rest does.
"""

from __future__ import annotations

from pathlib import Path

from bothy.api.server.replies import to_json
from bothy.api.server.schema import containers as shape
from bothy.engine.model import Workload

_MOST = 4096  # texts of a few kB each; beyond it all is made anew
_STATUS = "\0status"


class Shown:
    """The JSON of containers. Sizes are not its matter: they change without the record."""

    def __init__(self) -> None:
        self._inspected: dict[str, tuple[Workload, list[str], bytes]] = {}
        self._listed: dict[str, tuple[Workload, bytes, bytes]] = {}

    def inspect(self, workload: Workload, folder: Path, execs: list[str]) -> bytes:
        """`GET /containers/{id}/json`, with its end of line."""
        known = self._inspected.get(workload.id)
        if known is not None and known[0] is workload and known[1] == execs:
            return known[2]
        made = to_json(shape.inspect(workload, folder, execs))
        if len(self._inspected) >= _MOST:
            self._inspected.clear()
        self._inspected[workload.id] = (workload, execs, made)
        return made

    def listing(self, workloads: list[Workload], now: float) -> bytes:
        """`GET /containers/json`; all but the words that tell how long ago it was is kept."""
        return b"[" + b",".join([self._line(workload, now) for workload in workloads]) + b"]\n"

    def _line(self, workload: Workload, now: float) -> bytes:
        known = self._listed.get(workload.id)
        if known is None or known[0] is not workload:
            if len(self._listed) >= _MOST:
                self._listed.clear()
            entry = {**shape.summary(workload, now), "Status": _STATUS}
            before, _, after = to_json(entry).rstrip().partition(to_json(_STATUS).rstrip())
            known = self._listed[workload.id] = (workload, before, after)
        return known[1] + to_json(shape.status_text(workload, now)).rstrip() + known[2]
