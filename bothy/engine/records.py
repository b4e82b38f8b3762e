"""The engine's memory: one SQLite file in WAL mode. A record is written before the thing is made and deleted after it is gone.

    workloads   id | name | created | asked (JSON: what never changes) | state (JSON: what does)
    meta        key | value                 engine id, …
    documents   kind | key | body           small JSON records of other rooms (networks, …)
    migrations  version                     which of MIGRATIONS were applied

A workload's record is split in two because a start, an exit and a rename write only the few hundred bytes of its state.
`synchronous=NORMAL`: a commit is in the page cache when it returns, so kill -9 loses nothing and a power cut at worst the
last commits, never the file's integrity. Measured: 0.05 to 0.15 ms a commit, which is why it is done on the event loop's thread.
A full disk must not keep anybody from making room: what ends or removes a workload may use `reserve`, a file beside the
database that is there only to be given up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from bothy.engine.model import Workload
from bothy.errors import BothyError, Broken, Conflict, Unavailable
from bothy.jsonable import PLAIN

MIGRATIONS = (
    """
    CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE workloads(
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL, asked TEXT NOT NULL, state TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE documents(kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY(kind, key)) WITHOUT ROWID;
    """,
)
RESERVE = 256 * 1024
STATE = (
    "status", "pid", "exit_code", "error", "oom_killed", "started", "finished", "restart_count", "id_base", "endpoints",
    "ports", "warnings", "manually_stopped", "health",
)  # fmt: skip
_ASKED = tuple(f.name for f in dataclasses.fields(Workload) if f.name not in STATE)


class Records:
    """Opened once by the engine; used from the event loop's thread only."""

    def __init__(self, file: Path) -> None:
        """Open or make the file and bring its tables up to date. Raises Unavailable (disk full, not writable) or Broken."""
        self._file = file
        self._reserve = file.with_name("reserve")
        with self._told("open"):
            os.makedirs(file.parent, mode=0o700, exist_ok=True)
            self._keep_reserve()
            self._db = sqlite3.connect(file, isolation_level=None, timeout=5)
            os.chmod(file, 0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._migrate()

    def close(self) -> None:
        self._db.close()

    def _migrate(self) -> None:
        self._db.execute("CREATE TABLE IF NOT EXISTS migrations(version INTEGER PRIMARY KEY)")
        (done,) = self._db.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
        if done > len(MIGRATIONS):
            raise Broken(
                f"{self._file} was written by a newer bothy (version {done})", hint="use that bothy, or another BOTHY_ROOT"
            )
        for version, script in enumerate(MIGRATIONS[done:], done + 1):
            self._db.executescript(f"BEGIN; {script}; INSERT INTO migrations VALUES({version}); COMMIT;")

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """SQLite's and the file system's failures in bothy's words."""
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise _translated(exc, self._file, doing) from exc

    # -- workloads ---------------------------------------------------------------------------------------------------

    def workloads(self) -> list[Workload]:
        """All records, oldest first. A record that can not be read is Broken: it is never dropped silently."""
        with self._told("read"):
            rows = self._db.execute("SELECT name, asked, state FROM workloads ORDER BY created").fetchall()
        found = []
        for name, asked, state in rows:
            try:
                found.append(PLAIN.from_data(Workload, {**json.loads(asked), **json.loads(state), "name": name}))
            except ValueError as exc:
                raise Broken(f"the record of {name} in {self._file} can not be read: {exc}") from exc
        return found

    def insert(self, workload: Workload) -> None:
        """A new record. Raises Conflict for a name or id in use, Unavailable for a full disk; then nothing was written."""
        row = (workload.id, workload.name, workload.created, _json(workload, _ASKED), _json(workload, STATE))
        with self._told("write"):
            self._keep_reserve()
            try:
                self._db.execute("INSERT INTO workloads VALUES(?,?,?,?,?)", row)
            except sqlite3.IntegrityError as exc:
                raise Conflict(f"the name {workload.name!r} is already in use") from exc

    def save_state(self, workload: Workload) -> None:
        """Write the fields in STATE and the name. Raises Unavailable for a full disk; then the old state stands."""
        row = (workload.name, _json(workload, STATE), workload.id)
        with self._told("write"):
            self._execute_anyway("UPDATE workloads SET name=?, state=? WHERE id=?", row)

    def save(self, workload: Workload) -> None:
        """Write everything (also what was asked for, which a rename of it all or an update changes)."""
        with self._told("write"):
            self._db.execute(
                "UPDATE workloads SET name=?, asked=?, state=? WHERE id=?",
                (workload.name, _json(workload, _ASKED), _json(workload, STATE), workload.id),
            )

    def delete(self, workload_id: str) -> None:
        """Forget a workload: the last step of its removal."""
        with self._told("write"):
            self._execute_anyway("DELETE FROM workloads WHERE id=?", (workload_id,))

    # -- the reserve -------------------------------------------------------------------------------------------------

    def _keep_reserve(self) -> None:
        """Have the reserve, also after it was used. Raises OSError (a full disk)."""
        if self._reserve.exists():
            return
        fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE)
        except OSError:
            self._reserve.unlink()
            raise
        finally:
            os.close(fd)

    def _execute_anyway(self, statement: str, values: tuple[str, ...]) -> None:
        """Execute; if the disk is full, once more with the reserve's room."""
        try:
            self._db.execute(statement, values)
        except sqlite3.OperationalError as exc:
            if "full" not in str(exc) or not self._reserve.exists():
                raise
            self._reserve.unlink()
            self._db.execute(statement, values)

    # -- small things ------------------------------------------------------------------------------------------------

    def meta(self, key: str, default: str) -> str:
        """The value of a key; the default is stored if there is none yet."""
        with self._told("write"):
            row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
            if row is None:
                self._db.execute("INSERT INTO meta VALUES(?,?)", (key, default))
            return str(row[0]) if row else default

    def documents(self, kind: str) -> dict[str, str]:
        """All JSON texts of one kind, by key."""
        with self._told("read"):
            return dict(self._db.execute("SELECT key, body FROM documents WHERE kind=?", (kind,)).fetchall())

    def put_document(self, kind: str, key: str, body: str) -> None:
        """Write one small JSON text, replacing it if it is there."""
        with self._told("write"):
            self._db.execute("INSERT OR REPLACE INTO documents VALUES(?,?,?)", (kind, key, body))

    def delete_document(self, kind: str, key: str) -> None:
        with self._told("write"):
            self._db.execute("DELETE FROM documents WHERE kind=? AND key=?", (kind, key))


def _json(workload: Workload, fields: tuple[str, ...]) -> str:
    data = PLAIN.to_data({name: getattr(workload, name) for name in fields})
    return json.dumps({_camel(name): value for name, value in data.items() if value is not None}, separators=(",", ":"))


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def _translated(exc: sqlite3.Error | OSError, file: Path, doing: str) -> BothyError:
    text = str(exc)
    if isinstance(exc, OSError):
        return Unavailable(f"can not {doing} {file}: {exc.strerror or exc}", errno=exc.errno or 0)
    if "full" in text:
        return Unavailable(
            f"can not {doing} {file}: no space left on device", hint="free some space on the disk that holds BOTHY_ROOT", errno=28
        )
    if "disk I/O" in text or "locked" in text or "unable to open" in text or "readonly" in text:
        return Unavailable(f"can not {doing} {file}: {text}")
    return Broken(f"can not {doing} {file}: {text}")
