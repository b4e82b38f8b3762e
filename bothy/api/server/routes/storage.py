"""/bothy/volumes and /bothy/snapshots: what Docker's API has no words for: names, quotas, copies of volumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bothy.api.server import replies
from bothy.api.server.call import Call
from bothy.errors import Invalid

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse


@dataclass(frozen=True)
class Asked:
    """The body of these requests: a new name, a size (`10g`), the snapshot that a clone is made of, more labels."""

    name: str = ""
    size: str = ""
    snapshot: str = ""
    labels: dict[str, str] = field(default_factory=dict)


async def rename(call: Call) -> StreamResponse:
    """`POST /bothy/volumes/{name}/rename` with `Name`. Answers with the volume."""
    asked = await call.typed(Asked)
    return replies.reply(await call.engine.volumes.rename(call.params["name"], _needed(asked.name, "Name")))


async def resize(call: Call) -> StreamResponse:
    """`POST /bothy/volumes/{name}/resize` with `Size`. Answers with the volume."""
    asked = await call.typed(Asked)
    return replies.reply(await call.engine.volumes.resize(call.params["name"], _needed(asked.size, "Size")))


async def clone(call: Call) -> StreamResponse:
    """`POST /bothy/volumes/{name}/clone` with `Name`, perhaps `Snapshot` and `Labels`. Answers with the volume, and `Atomic`."""
    asked = await call.typed(Asked)
    name = _needed(asked.name, "Name")
    return replies.reply(await call.engine.volumes.clone(call.params["name"], name, asked.snapshot, asked.labels), 201)


async def snapshots(call: Call) -> StreamResponse:
    """`GET /bothy/snapshots`, of all volumes or of `volume`."""
    return replies.reply(await call.engine.volumes.snapshots(call.text("volume")))


async def snapshot(call: Call) -> StreamResponse:
    """`POST /bothy/volumes/{name}/snapshots`, perhaps with `Name`. Answers with the snapshot."""
    asked = await call.typed(Asked)
    return replies.reply(await call.engine.volumes.snapshot(call.params["name"], asked.name), 201)


async def restore(call: Call) -> StreamResponse:
    """`POST /bothy/volumes/{name}/snapshots/{snapshot}/restore`. Answers with the volume."""
    return replies.reply(await call.engine.volumes.restore(call.params["name"], call.params["snapshot"]))


async def remove_snapshot(call: Call) -> StreamResponse:
    """`DELETE /bothy/volumes/{name}/snapshots/{snapshot}`."""
    await call.engine.volumes.remove_snapshot(call.params["name"], call.params["snapshot"])
    return replies.nothing()


def _needed(value: str, field_name: str) -> str:
    if not value:
        raise Invalid(f"invalid request: {field_name}: missing")
    return value
