"""/auth, /distribution and /images/search: what is asked of registries, with the credentials that a client sends along."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from bothy.api.server import replies
from bothy.api.server.call import Call
from bothy.engine import registry
from bothy.engine.registry import Credentials
from bothy.errors import Invalid

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

_MOST = 100


def credentials(call: Call) -> Credentials:
    """Those of `X-Registry-Auth`: base64 (with the alphabet for URLs) of a JSON object. Raises Invalid."""
    text = call.request.headers.get("X-Registry-Auth", "")
    if not text:
        return Credentials()
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError as exc:
        raise Invalid(f"X-Registry-Auth can not be read: {exc}") from exc
    return _named(found)


def _named(data: Any) -> Credentials:
    if not isinstance(data, dict):
        raise Invalid("credentials are an object with username and password")
    words = [data.get(key) or "" for key in ("username", "password")]
    if not all(isinstance(word, str) for word in words):
        raise Invalid("username and password are strings")
    return Credentials(*words)


async def auth(call: Call) -> StreamResponse:
    """`POST /auth`: whether a registry takes a name and a password. Nothing is kept: clients keep their own."""
    data = await call.data()
    address = data.get("serveraddress") or ""
    if not isinstance(address, str):
        raise Invalid("serveraddress is a string")
    await registry.login(address, _named(data))
    return replies.reply({"IdentityToken": "", "Status": "Login Succeeded"})


async def distribution(call: Call) -> StreamResponse:
    """`GET /distribution/{name}/json`: what a name stands for in its registry."""
    return replies.reply(await registry.describe(call.params["name"], credentials(call)))


async def search(call: Call) -> StreamResponse:
    """`GET /images/search`: repositories with a term in their names, filtered by `is-official` and `stars`."""
    limit = call.integer("limit") or 25
    if not 1 <= limit <= _MOST:
        raise Invalid(f"limit {limit} is outside the range of [1, {_MOST}]")
    filters = call.filters()
    for word in filters:
        if word not in ("is-official", "is-automated", "stars"):
            raise Invalid(f"invalid filter '{word}'")
    found = await registry.search(call.text("term"), limit, credentials(call))
    return replies.reply([entry for entry in found if _wanted(entry, filters)][:limit])


def _wanted(entry: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    for value in filters.get("is-official", ()):
        if bool(entry.get("is_official")) != (value.lower() in ("1", "true")):
            return False
    for value in filters.get("stars", ()):
        if not value.isdecimal():
            raise Invalid(f"invalid filter 'stars={value}'")
        if int(entry.get("star_count") or 0) < int(value):
            return False
    return True
