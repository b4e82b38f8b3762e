"""The index of the image store: which images there are, what they are called, which layers they have (SQLite, WAL).

    images(id, created, size, digest, config)          one row an image; config is its configuration blob
    tags(name, image, tagged)                          canonical reference → image
    digests(name, image)                               canonical name@digest → image
    layers(diff_id, folder, size, tar_size, opaque)    one row an unpacked layer
    image_layers(image, position, diff_id)             bottom first

A row is written after the thing that it speaks of is whole on disk, and removed before that thing is. So whatever is on disk
without a row is rubbish, and the next start removes it.
Functions are called from any thread; each is one transaction under one lock.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bothy.images.model import Layer

_SCHEMA = """
CREATE TABLE IF NOT EXISTS images(
    id TEXT PRIMARY KEY, created TEXT NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL, config BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags(
    name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, tagged TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_image ON tags(image);
CREATE TABLE IF NOT EXISTS digests(
    name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS digests_image ON digests(image);
CREATE TABLE IF NOT EXISTS layers(
    diff_id TEXT PRIMARY KEY, folder TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, tar_size INTEGER NOT NULL, opaque INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS image_layers(
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, position INTEGER NOT NULL,
    diff_id TEXT NOT NULL REFERENCES layers(diff_id), PRIMARY KEY(image, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS image_layers_diff_id ON image_layers(diff_id);
CREATE TABLE IF NOT EXISTS counter(value INTEGER NOT NULL);
INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counter);
"""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Database:
    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or, after an exception, nothing. Nests."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[str, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    # Images and names

    def add_image(self, image: str, created: str, size: int, digest: str, config: bytes, diff_ids: Sequence[str]) -> None:
        """Add an image whose layers are all there. Nothing changes where it is there already."""
        with self.transaction() as db:
            added = db.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?)", (image, created, size, digest, config))
            if added.rowcount:
                rows = [(image, position, diff_id) for position, diff_id in enumerate(diff_ids)]
                db.executemany("INSERT INTO image_layers VALUES (?, ?, ?)", rows)

    def image(self, image: str) -> tuple[str, int, str, bytes] | None:
        """(created, size, digest, config) of an image."""
        rows = self._rows("SELECT created, size, digest, config FROM images WHERE id = ?", (image,))
        return rows[0] if rows else None  # type: ignore[return-value]

    def images(self) -> list[str]:
        """The ids of all images, newest first."""
        return [row[0] for row in self._rows("SELECT id FROM images ORDER BY created DESC, id")]

    def with_prefix(self, prefix: str) -> list[str]:
        """The ids that begin with `sha256:<prefix>`; at most two."""
        low = f"sha256:{prefix}"
        return [row[0] for row in self._rows("SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2", (low, low + "g"))]

    def named(self, name: str) -> str | None:
        """The image with a canonical reference (tag or digest)."""
        rows = self._rows("SELECT image FROM tags WHERE name = ?1 UNION ALL SELECT image FROM digests WHERE name = ?1", (name,))
        return rows[0][0] if rows else None

    def tags(self, image: str) -> list[tuple[str, str]]:
        """(canonical reference, when tagged) of an image, sorted."""
        return self._rows("SELECT name, tagged FROM tags WHERE image = ? ORDER BY name", (image,))  # type: ignore[return-value]

    def tags_of(self, name: str) -> list[tuple[str, str]]:
        """(canonical reference, image) of all tags of a canonical name, sorted."""
        query = "SELECT name, image FROM tags WHERE name > ? AND name < ? ORDER BY name"
        return self._rows(query, (name + ":", name + ";"))  # type: ignore[return-value]

    def digests(self, image: str) -> list[str]:
        return [row[0] for row in self._rows("SELECT name FROM digests WHERE image = ? ORDER BY name", (image,))]

    def tag(self, name: str, image: str, when: str) -> None:
        """Give a canonical reference to an image, taking it from another that has it."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (name, image, when))

    def untag(self, name: str) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM tags WHERE name = ?", (name,))
            db.execute("DELETE FROM digests WHERE name = ?", (name,))

    def remove_image(self, image: str) -> None:
        """Forget an image and its names; its layers stay until `forget_unused_layers`."""
        with self.transaction() as db:
            db.execute("DELETE FROM images WHERE id = ?", (image,))

    # Layers

    def new_folder(self) -> str:
        """A short name for a layer's folder that was never used before."""
        with self.transaction() as db:
            ((value,),) = db.execute("UPDATE counter SET value = value + 1 RETURNING value").fetchall()
        name = ""
        while value:
            value, digit = divmod(value, 36)
            name = _DIGITS[digit] + name
        return name

    def add_layer(self, layer: Layer) -> None:
        with self.transaction() as db:
            row = (layer.diff_id, layer.folder, layer.size, layer.tar_size, int(layer.opaque_root))
            db.execute("INSERT INTO layers VALUES (?, ?, ?, ?, ?)", row)

    def layer(self, diff_id: str) -> Layer | None:
        rows = self._rows("SELECT * FROM layers WHERE diff_id = ?", (diff_id,))
        return _layer(rows[0]) if rows else None

    def layers(self) -> list[Layer]:
        return [_layer(row) for row in self._rows("SELECT * FROM layers")]

    def layers_of(self, image: str) -> list[Layer]:
        """The layers of an image, bottom first."""
        query = "SELECT layers.* FROM image_layers JOIN layers USING (diff_id) WHERE image = ? ORDER BY position"
        return [_layer(row) for row in self._rows(query, (image,))]

    def forget_unused_layers(self, pinned: set[str]) -> list[Layer]:
        """Forget the layers that no image has, except pinned ones; returns them, for their folders to be removed."""
        query = "SELECT * FROM layers WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)"
        with self.transaction() as db:
            unused = [layer for layer in map(_layer, db.execute(query).fetchall()) if layer.diff_id not in pinned]
            db.executemany("DELETE FROM layers WHERE diff_id = ?", [(layer.diff_id,) for layer in unused])
        return unused


def _layer(row: tuple[object, ...]) -> Layer:
    diff_id, folder, size, tar_size, opaque = row
    return Layer(str(diff_id), str(folder), int(str(size)), int(str(tar_size)), bool(opaque))
