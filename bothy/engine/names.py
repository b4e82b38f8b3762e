"""Names and ids of workloads: Docker's rules, friendly random names, 64 hex digits.

Source of the rules: moby daemon/names (`RestrictedNamePattern`).
"""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable

from bothy.errors import Conflict, Invalid

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MOODS = (
    "able airy amber bold brave breezy bright brisk calm candid cheery clear clever cosy crisp curious dapper deft eager "
    "early fair fleet fond frank fresh gentle glad golden grand hardy hazel honest humble jolly keen kind lively loyal lucid "
    "mellow merry mild misty neat nimble noble open patient plain plucky proud quick quiet ready rosy rustic serene sharp shy "
    "silver simple sly smart snug sober solid spry steady still sturdy sunny sure swift tidy trusty vivid warm wise witty "
    "worthy young zesty"
)
_PLACES = (
    "alder anvil ash badger barn beacon beck birch bracken brae bramble brook burn byre cairn cedar clover corrie cove "
    "cottage crag croft curlew dale dell den dun eagle elm ember fell fern firth ford fox gable gate glen gorse grouse gully "
    "hare hawk hazel heath hearth heron hill holm inlet isle kestrel knoll lantern larch ledge linnet loch lodge lynx marsh "
    "meadow mill moor moss oak otter owl path peak peat pine plover pond quarry raven reed ridge robin rowan saddle sedge "
    "shieling shore skerry spring stag stile stone strath summit swallow tarn thistle thrush tor vale willow wren yew"
)


def new_id() -> str:
    """A fresh id; never one that could be read as a decimal number when shortened to twelve digits (Docker's rule)."""
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:12].isdecimal():
            return candidate


def checked(name: str) -> str:
    """The name without Docker's leading slash. Raises Invalid for one that is not allowed."""
    bare = name.removeprefix("/")
    if not _NAME.fullmatch(bare):
        raise Invalid(f"invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


def friendly(taken: Callable[[str], bool]) -> str:
    """A random name that is not taken. Raises Conflict in the end, should all of them be."""
    for _ in range(50):
        name = f"{random.choice(_MOODS.split())}_{random.choice(_PLACES.split())}"
        if not taken(name):
            return name
    for _ in range(50):
        name = f"{random.choice(_MOODS.split())}_{random.choice(_PLACES.split())}{random.randrange(10_000)}"
        if not taken(name):
            return name
    raise Conflict("no free random name was found", hint="give the workload a name with --name")
