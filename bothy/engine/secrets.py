"""Secrets: small files that workloads find at /run/secrets, kept by the engine. Not encrypted at rest: they are root's, and no one
else's.

    <root>/secrets/<id>      the content, 0600 in a folder of 0700
    documents "secret"       name ─▶ {id, created, updated, labels}

The content leaves the store at a start, for a file system in memory inside (`bothy.linux.secretfiles`): records, plans, answers and
logs have names only. Another content takes the place of an old one by one write of the document; who runs keeps what it has.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import secrets as randomness
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bothy.engine import filters as matching
from bothy.engine import times
from bothy.engine.hall import Hall
from bothy.engine.model import HostConfig, SecretMount
from bothy.errors import Conflict, Invalid, NotFound, Unavailable
from bothy.jsonable import PLAIN
from bothy.linux.secretfiles import FOLDER, LARGEST, SecretFile
from bothy.log import logger

_log = logger("engine")
KIND = "secret"
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9])?")
_MOST_ID = 65535
_Listing = list[dict[str, Any]]
_Words = list[str]


@dataclass(frozen=True)
class Secret:
    """What is known of one, but for what it says."""

    name: str
    id: str
    created: str
    updated: str
    labels: dict[str, str] = field(default_factory=dict)


class Secrets:
    """The engine's `secrets`. Everything is small: done on the event loop's thread."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._folder = folder(hall.paths.root)

    async def list(self, filters: matching.Filters) -> _Listing:
        """Those that match; filters: id, name, label. Raises Invalid for others."""
        matching.check(filters, ("id", "name", "label"))
        return [
            self._shown(found)
            for found in known(self._hall).values()
            if matching.labels_match(filters, found.labels)
            and (not filters.get("name") or matching.pattern_matches(filters["name"], found.name))
            and (not filters.get("id") or any(found.id.startswith(text) for text in filters["id"]))
        ]

    async def get(self, name: str) -> dict[str, Any]:
        """One, without what it says. Raises NotFound."""
        return self._shown(_find(self._hall, name))

    async def create(self, name: str, content: bytes, labels: dict[str, str], *, replace: bool) -> dict[str, Any]:
        """A new one; with `replace` also another content for one that is there.

        Raises Invalid, Conflict for a name in use, Unavailable for a full disk; then nothing has changed.
        """
        if not _NAME.fullmatch(name):
            raise Invalid(f"invalid secret name: {name!r}", hint="letters, digits, _ . and - inside, at most 64 characters")
        if not 0 < len(content) <= LARGEST:
            raise Invalid(f"secret data must be larger than 0 and at most {LARGEST} bytes, not {len(content)}")
        old = known(self._hall).get(name)
        if old is not None and not replace:
            raise Conflict(f"secret {name} already exists", hint="--replace gives it another content")
        now = times.now()
        made = Secret(name, randomness.token_hex(12), old.created if old else now, now, labels or (old.labels if old else {}))
        file = self._folder / made.id
        try:
            _write(file, content)
            self._hall.records.put_document(KIND, name, json.dumps(PLAIN.to_data(made)))
        except OSError as exc:
            file.unlink(missing_ok=True)
            raise Unavailable(f"secret {name} can not be stored: {exc.strerror or exc}", errno=exc.errno or 0) from exc
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        if old is not None:
            _unlink(self._folder / old.id)
        self._hall.events.publish("secret", "update" if old else "create", made.id, {"name": name})
        return self._shown(made)

    async def remove(self, name: str) -> None:
        """Raises NotFound, Conflict while there is a workload that is given it."""
        found = _find(self._hall, name)
        if users := self._users(found.name):
            raise Conflict(f"secret {found.name} is in use by {', '.join(users)}", hint="remove those workloads first")
        self._hall.records.delete_document(KIND, found.name)
        _unlink(self._folder / found.id)
        self._hall.events.publish("secret", "remove", found.id, {"name": found.name})

    def _users(self, name: str) -> _Words:
        return [live.record.name for live in self._hall.workloads if any(s.source == name for s in live.record.host_config.secrets)]

    def _shown(self, found: Secret) -> dict[str, Any]:
        return {
            "ID": found.id,
            "CreatedAt": found.created,
            "UpdatedAt": found.updated,
            "Spec": {"Name": found.name, "Labels": found.labels},
            "Workloads": self._users(found.name),
        }


def folder(root: Path) -> Path:
    """Where the contents are."""
    return root / "secrets"


def known(hall: Hall) -> dict[str, Secret]:
    """All, by name."""
    return {name: PLAIN.loads(Secret, text) for name, text in hall.records.documents(KIND).items()}


def sweep(hall: Hall) -> None:
    """At the engine's start: contents that no document names (a create or a removal was cut short) are removed."""
    kept = {found.id for found in known(hall).values()}
    try:
        names = os.listdir(folder(hall.paths.root))
    except FileNotFoundError:
        return
    for name in names:
        if name not in kept:
            _unlink(folder(hall.paths.root) / name)


def check(hall: Hall, host: HostConfig) -> None:
    """What `--secret` asks for. Raises Invalid."""
    if not host.secrets:
        return
    there = known(hall)
    targets: set[str] = set()
    for asked in host.secrets:
        if asked.source not in there:
            raise Invalid(f"secret not found: {asked.source}", hint="bothy secret ls lists them, bothy secret create makes one")
        target = _target(asked)
        if target in targets:
            raise Invalid(f"two secrets have the target {target}", hint="give one of them another with target=")
        targets.add(target)
        if not (0 <= asked.uid <= _MOST_ID and 0 <= asked.gid <= _MOST_ID):
            raise Invalid(f"secret {asked.source}: invalid owner {asked.uid}:{asked.gid}", hint=f"ids are 0 to {_MOST_ID}")
        if not 0 <= asked.mode <= 0o777:
            raise Invalid(f"secret {asked.source}: invalid mode {asked.mode:o}", hint="0 to 0777")


def _target(asked: SecretMount) -> str:
    """Where it is seen. Raises Invalid."""
    target = asked.target or asked.source
    path = posixpath.normpath(target if target.startswith("/") else f"{FOLDER}/{target}")
    if "\0" in target or ".." in target.split("/") or path in ("/", FOLDER) or target.endswith("/"):
        raise Invalid(f"secret {asked.source}: invalid target {target!r}", hint=f"a path, or a name below {FOLDER}")
    return path


def files(hall: Hall, host: HostConfig) -> list[SecretFile]:
    """What a start has to put inside. Raises NotFound for a secret that is gone."""
    if not host.secrets:
        return []
    there = known(hall)
    for asked in host.secrets:
        if asked.source not in there:
            raise NotFound(f"secret {asked.source} is not there any more", hint=f"bothy secret create {asked.source} FILE")
    place = folder(hall.paths.root)
    return [SecretFile(str(place / there[s.source].id), _target(s), s.uid, s.gid, s.mode) for s in _in_order(host.secrets)]


def _in_order(asked: Iterable[SecretMount]) -> list[SecretMount]:
    return sorted(asked, key=lambda one: _target(one).count("/"))


def _find(hall: Hall, ref: str) -> Secret:
    """By name, or by id or its beginning. Raises NotFound."""
    there = known(hall)
    found = there.get(ref) or next((s for s in there.values() if len(ref) >= 4 and s.id.startswith(ref)), None)
    if found is None:
        raise NotFound(f"secret {ref} not found", hint="bothy secret ls lists them")
    return found


def _write(file: Path, content: bytes) -> None:
    """Written whole and on disk, or not there. Raises OSError."""
    os.makedirs(file.parent, mode=0o700, exist_ok=True)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as exc:
        _log.error("%s can not be removed: %s", file, exc)
