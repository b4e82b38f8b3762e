"""Unpacked layers: each made once, shared by all images that have it, removed when none has.

    images/
    ├── layers/<n>/        the layer's files: an overlay lower. <n> is short, so that many fit mount(2)'s one page of options
    ├── recipes/<n>        how its tar is put together again (see `bothy.images.recipe`)
    └── tmp/<random>/      work in progress, and what is being removed; emptied at every start

A layer is unpacked in tmp/, renamed into place, and then gets its row in the index. It is removed in the other order. So kill -9 at
any moment leaves either a whole layer with a row, or rubbish without one, which `sweep` finds.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothy.errors import Broken, Invalid, Unavailable
from bothy.images.database import Database
from bothy.images.model import Layer
from bothy.images.processes import run


@dataclass(frozen=True)
class Source:
    """Where a layer's tar is: `size` bytes (negative: all) from `offset` of an open file. `digest` is what the bytes as they are
    must have, empty where nobody promised."""

    fd: int
    offset: int = 0
    size: int = -1
    digest: str = ""


class LayerStore:
    """The layers below `root`. Methods are called from any thread."""

    def __init__(self, root: Path, database: Database) -> None:
        self._database = database
        self._folders = root / "layers"
        self._recipes = root / "recipes"
        self.tmp = root / "tmp"
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self._pins: Counter[str] = Counter()
        for folder in (self._folders, self._recipes, self.tmp):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, layer: Layer) -> Path:
        """The layer's folder."""
        return self._folders / layer.folder

    def recipe(self, layer: Layer) -> Path:
        """The file with the layer's recipe."""
        return self._recipes / layer.folder

    # Making

    @contextmanager
    def pinned(self, diff_ids: list[str]) -> Iterator[None]:
        """Keep these layers from being removed while an image of them is being made."""
        with self._lock:
            self._pins.update(diff_ids)
        try:
            yield
        finally:
            with self._lock:
                self._pins -= Counter(diff_ids)

    def ensure(self, diff_id: str, source: Source, what: str) -> Layer:
        """The layer with this diff id, unpacked now if it is not there.

        Call it with the layer pinned. Raises Invalid if the source is not what it should be, Unavailable if the disk is full;
        then nothing is left.
        """
        with self._one_at_a_time(diff_id):
            return self._database.layer(diff_id) or self._unpack(diff_id, source, what)

    def adopt(self, source: Source, what: str, *, empty_ok: bool = True) -> Layer:
        """The layer that a tar without a promised digest is. It is not pinned: call it in a `holding` block."""
        with self.workspace() as folder:
            result = self._run(folder, source, what)
            if not empty_ok and not result["entries"]:
                raise Invalid(f"{what}: the archive is empty")
            return self._settle(folder, result)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep every layer from being removed: for layers whose name is known only when they are there."""
        with self.pinned(["*"]):
            yield

    def _unpack(self, diff_id: str, source: Source, what: str) -> Layer:
        with self.workspace() as folder:
            result = self._run(folder, source, what)
            if source.digest and result["digest"] != source.digest:
                raise Invalid(f"{what}: digest is {result['digest']}, should be {source.digest}")
            if result["diff_id"] != diff_id:
                raise Invalid(f"{what}: diff id is {result['diff_id']}, should be {diff_id}")
            return self._settle(folder, result)

    def _run(self, folder: Path, source: Source, what: str) -> dict[str, Any]:
        """Unpack into `<folder>/fs`; a second time, with the contents in the recipe, if the recipe alone would not do."""
        result: dict[str, Any] = {}
        for inline in (False, True):
            target = folder / ("inline" if inline else "fs")
            target.mkdir(mode=0o755)
            job = {
                "fd": source.fd, "offset": source.offset, "size": source.size, "hashed": bool(source.digest), "inline": inline,
                "folder": str(target), "recipe": str(folder / "recipe"),
            }  # fmt: skip
            result = run("unpack", job, fds=[source.fd], what=what)
            result["folder"] = str(target)
            if not result["spoiled"] or inline:
                break
        return result

    def _settle(self, folder: Path, result: dict[str, Any]) -> Layer:
        """Put an unpacked layer in its place and into the index, unless it is there. It is on the disk before the index says so."""
        subprocess.run(["sync", "--file-system", str(folder)], check=True)
        with self._lock:
            known = self._database.layer(result["diff_id"])
            if known is not None:
                return known
            name = self._database.new_folder()
            layer = Layer(result["diff_id"], name, result["size"], result["tar_size"], result["opaque_root"])
            os.rename(folder / "recipe", self.recipe(layer))
            os.rename(result["folder"], self.path(layer))
            self._database.add_layer(layer)
        return layer

    @contextmanager
    def _one_at_a_time(self, diff_id: str) -> Iterator[None]:
        with self._lock:
            lock = self._busy.setdefault(diff_id, threading.Lock())
        with lock:
            yield
        with self._lock:
            if not lock.locked():
                self._busy.pop(diff_id, None)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder in tmp/ that is gone afterwards, with what is in it. Raises Unavailable if the disk is full."""
        try:
            folder = Path(tempfile.mkdtemp(dir=self.tmp))
        except OSError as exc:
            raise Unavailable(f"{self.tmp}: {exc.strerror}", errno=exc.errno or 0) from exc
        try:
            yield folder
        finally:
            remove_tree(folder)

    # Removing

    def collect(self) -> list[Layer]:
        """Remove the layers that no image has and nobody pins; returns them."""
        with self._lock:
            if self._pins["*"]:
                return []
            unused = self._database.forget_unused_layers(set(self._pins))
        if unused:
            with self.workspace() as folder:
                for layer in unused:
                    _move_away(self.path(layer), folder / layer.folder)
                    _move_away(self.recipe(layer), folder / f"{layer.folder}.recipe")
        return unused

    def sweep(self) -> None:
        """Remove what a crash left: everything in tmp/, and folders and recipes without a row."""
        rubbish = list(self.tmp.iterdir())
        known = {layer.folder for layer in self._database.layers()}
        for place in (self._folders, self._recipes):
            rubbish += [path for path in place.iterdir() if path.name not in known]
        if rubbish:
            remove_tree(*rubbish)


def _move_away(path: Path, to: Path) -> None:
    try:
        os.rename(path, to)
    except FileNotFoundError:
        pass


def remove_tree(*paths: Path) -> None:
    """Remove folders with all that is in them, by rm(1): ten thousand unlinks are not for the daemon's interpreter lock.

    Raises Broken with what rm said.
    """
    argv = ["rm", "-rf", "--one-file-system", "--", *map(str, paths)]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise Broken(done.stderr.strip() or f"rm ended with status {done.returncode}")
