"""Questions to registries, each asked by a process of its own: bothyd does without TLS (decision 0120).

Nothing that a registry says is read here but the answer's JSON, as `bothy.images.registry` has made it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from bothy.errors import CATEGORIES, Broken, Unavailable
from bothy.images.credentials import Credentials

__all__ = ["Credentials", "describe", "login", "search"]

_ASK = "from bothy.images.registry import main; main()"
_PATIENCE = 90.0  # seconds; a registry has 30 for each of the few requests that make a question
_SHOWN = 2000


async def login(host: str, credentials: Credentials) -> None:
    """Whether a registry knows who asks. Raises Unauthorized if not, Unavailable, Invalid."""
    await _ask("login", credentials, host=host)


async def describe(name: str, credentials: Credentials) -> dict[str, Any]:
    """What an image's name stands for in its registry: descriptor and platforms, in the shape of Docker's DistributionInspect.

    Raises Invalid (no name), NotFound, Forbidden, Unauthorized, Unavailable.
    """
    found: dict[str, Any] = await _ask("describe", credentials, name=name)
    return found


async def search(term: str, limit: int, credentials: Credentials) -> list[dict[str, Any]]:
    """Repositories whose name or description has the term, of the registry that it begins with or of Docker's.

    Raises Invalid (no term), NotFound (that registry can not search), Forbidden, Unavailable.
    """
    found: list[dict[str, Any]] = await _ask("search", credentials, term=term, limit=limit)
    return found


async def _ask(what: str, credentials: Credentials, **arguments: object) -> Any:
    who = {"username": credentials.username, "password": credentials.password}
    question = json.dumps({"ask": what, "parent": os.getpid(), **who, **arguments})
    mode = "-I" if sys.flags.isolated else "-P"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, mode, "-c", _ASK, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        out, words = await asyncio.wait_for(process.communicate(question.encode()), _PATIENCE)
    except BaseException as exc:
        process.kill()
        await process.wait()
        if isinstance(exc, TimeoutError):
            raise Unavailable(f"the registry has not answered within {_PATIENCE:.0f} s") from exc
        raise
    if process.returncode or not out:
        raise Broken(f"the question to the registry failed: {words.decode(errors='replace').strip()[-_SHOWN:]}")
    said = json.loads(out)
    refusal = said.get("refusal")
    if refusal is not None:
        kind = next(kind for kind in CATEGORIES if kind.category == refusal["category"])
        raise kind(refusal["message"], hint=refusal["hint"])
    return said["answer"]
