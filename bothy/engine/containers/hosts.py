"""The hosts file of a container that runs: lines of ours come and go. A machine has a file of its own, which stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from bothy.engine.hall import Hall
from bothy.engine.model import Wall, Workload
from bothy.log import logger

_log = logger("engine")
_MAX_FILE = 1 << 20


def change(
    hall: Hall, record: Workload, *, add: Iterable[tuple[str, Sequence[str]]] = (), remove: Callable[[str, str], bool] | None = None
) -> None:
    """Add (address, names), and take away the lines for whose address and names `remove` is true.

    The file is changed in place, for it is mounted; the container writes it too, so nothing is expected of it. Failures are logged.
    """
    if record.wall is Wall.VM:
        return
    path = f"{hall.paths.container(record.id)}/hosts"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            lines = os.read(fd, _MAX_FILE).decode(errors="surrogateescape").splitlines()
            if remove is not None:
                lines = [line for line in lines if not remove(*line.partition("\t")[::2])]
            lines += [f"{address}\t{' '.join(names)}" for address, names in add]
            data = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)
    except OSError as exc:
        _log.warning("%s was not changed: %s", path, exc)
