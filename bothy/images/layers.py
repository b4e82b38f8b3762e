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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothy.errors import Broken, Invalid, Unavailable
from bothy.images.database import Database
from bothy.images.model import Layer
from bothy.images.processes import run

REMOVAL_TRIES = 3
AT_ONCE = max(1, min(4, os.cpu_count() or 1))


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
        self._making = threading.Lock()
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

    def ensure(self, sources: dict[str, Source], what: str, progress: Callable[[str], None]) -> None:
        """Have the layers with these diff ids, those that are missing unpacked now, several at once.

        Call it with the layers pinned. Raises Invalid if a source is not what it should be, Unavailable if the disk is full; then
        nothing is left.
        """
        with self._making:
            missing = [diff_id for diff_id in sources if self._database.layer(diff_id) is None]
            if not missing:
                return
            with self.workspace() as folder:
                results = self._unpack(folder, [sources[diff_id] for diff_id in missing], what, progress)
                for diff_id, result in zip(missing, results, strict=True):
                    promised = sources[diff_id].digest
                    if promised and result["digest"] != promised:
                        raise Invalid(f"{what}: digest of a layer is {result['digest']}, should be {promised}")
                    if result["diff_id"] != diff_id:
                        raise Invalid(f"{what}: diff id of a layer is {result['diff_id']}, should be {diff_id}")
                self._settle(folder, results)

    def adopt(self, source: Source, what: str) -> Layer:
        """The layer that a tar without a promised digest is. It is not pinned: call it in a `holding` block.

        Raises Invalid (also for an archive with nothing in it), Unavailable if the disk is full; then nothing is left.
        """
        with self.workspace() as folder:
            results = self._unpack(folder, [source], what, lambda _: None)
            if not results[0]["entries"]:
                raise Invalid(f"{what}: the archive is empty")
            return self._settle(folder, results)[0]

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep every layer from being removed: for layers whose name is known only when they are there."""
        with self.pinned(["*"]):
            yield

    def _unpack(self, folder: Path, sources: list[Source], what: str, progress: Callable[[str], None]) -> list[dict[str, Any]]:
        """Unpack each source below `folder`; those whose recipe would not do once more, with the contents in the recipe."""
        jobs = [_job(folder / str(number), source, inline=False) for number, source in enumerate(sources)]
        results = _run(jobs, what, progress)
        again = [number for number, result in enumerate(results) if result["spoiled"]]
        jobs = [_job(folder / f"{number}.inline", sources[number], inline=True) for number in again]
        for number, result in zip(again, _run(jobs, what, lambda _: None), strict=True):
            results[number] = result
        return results

    def _settle(self, folder: Path, results: list[dict[str, Any]]) -> list[Layer]:
        """Put unpacked layers in their places and into the index, those that are not there. They are on the disk before the
        index says so."""
        _sync(folder)
        layers = []
        with self._lock, self._database.transaction():
            for result in results:
                layer = self._database.layer(result["diff_id"])
                if layer is None:
                    name = self._database.new_folder()
                    layer = Layer(result["diff_id"], name, result["size"], result["tar_size"], result["opaque_root"])
                    os.rename(result["recipe"], self.recipe(layer))
                    os.rename(result["folder"], self.path(layer))
                    self._database.add_layer(layer)
                layers.append(layer)
        return layers

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


def _job(target: Path, source: Source, *, inline: bool) -> dict[str, Any]:
    """What the worker is told about one layer: where its tar is, and where its folder and its recipe go."""
    target.mkdir(mode=0o755)
    return {
        "fd": source.fd, "offset": source.offset, "size": source.size, "hashed": bool(source.digest), "inline": inline,
        "folder": str(target), "recipe": f"{target}.recipe",
    }  # fmt: skip


def _run(jobs: list[dict[str, Any]], what: str, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Unpack layers in a worker, several at once; returns what it tells of each, with the job's own words."""
    if not jobs:
        return []
    answer = run(
        "unpack", {"layers": jobs, "at_once": AT_ONCE}, fds=sorted({job["fd"] for job in jobs}), what=what, progress=progress
    )
    return [job | result for job, result in zip(jobs, answer["layers"], strict=True)]


def _sync(folder: Path) -> None:
    """Have the file system write everything to the disk. Raises Unavailable."""
    done = subprocess.run(["sync", "--file-system", str(folder)], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise Unavailable(done.stderr.strip())


def _move_away(path: Path, to: Path) -> None:
    try:
        os.rename(path, to)
    except FileNotFoundError:
        pass


def remove_tree(*paths: Path) -> None:
    """Remove folders with all that is in them, by rm(1): ten thousand unlinks are not for the daemon's interpreter lock.

    Tried again if it fails: a worker that is just being killed may put one more file into a folder. Raises Broken.
    """
    argv = ["rm", "-rf", "--one-file-system", "--", *map(str, paths)]
    for _ in range(REMOVAL_TRIES):
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode == 0:
            return
    raise Broken(done.stderr.strip() or f"rm ended with status {done.returncode}")
