"""/bothy/secrets: secrets as files, without a swarm (whose /secrets answer as a non-member's). What one says is never told."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bothy.api.server import replies
from bothy.api.server.call import Call
from bothy.errors import Invalid

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse


@dataclass(frozen=True)
class Asked:
    """The body of a creation: `data` in base64. `replace`: also for one that is there."""

    name: str = ""
    data: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    replace: bool = False


async def create(call: Call) -> StreamResponse:
    """Answers with the secret, without its content."""
    asked = await call.typed(Asked)
    try:
        content = base64.b64decode(asked.data, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("invalid request: Data: expected base64") from None
    found = await call.engine.secrets.create(asked.name, content, asked.labels, replace=asked.replace)
    return replies.reply(found, 201)


async def listing(call: Call) -> StreamResponse:
    """All that match the filters id, name and label."""
    return replies.reply(await call.engine.secrets.list(call.filters()))


async def inspect(call: Call) -> StreamResponse:
    """One, by name or id."""
    return replies.reply(await call.engine.secrets.get(call.params["name"]))


async def remove(call: Call) -> StreamResponse:
    """Refused while a workload is given it."""
    await call.engine.secrets.remove(call.params["name"])
    return replies.nothing()
