"""Archives that came compressed, decompressed on their way by a worker: for rooms that read plain ones."""

from __future__ import annotations

from bothy.images.processes import run


def inflate(source: int, out: int, what: str) -> None:
    """Decompress what can be read from one descriptor into another, a pipe. Both stay open. Blocks.

    Raises Invalid for damaged data, Broken where nobody reads.
    """
    run("spool", {"fd": source, "out": f"/dev/fd/{out}"}, fds=[source, out], what=what)
