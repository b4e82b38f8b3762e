"""The engine's `images`: the store, in threads where it takes time, with who uses what, and events."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from bothy.engine import filters as matching
from bothy.engine import times
from bothy.engine.hall import Hall
from bothy.engine.heavy import heavy
from bothy.images.model import Image
from bothy.images.store import ImageStore

_Images = list[Image]
_Listing = list[dict[str, Any]]
_Words = list[str]
KNOWN_FILTERS = ("dangling", "label", "before", "since", "reference", "until")


class Images:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    @property
    def store(self) -> ImageStore:
        return self._hall.images

    async def list(self, filters: matching.Filters) -> _Images:
        """Images that match Docker's filters, newest first. Raises Invalid, NotFound (`before`, `since`)."""
        matching.check(filters, KNOWN_FILTERS)
        found = self.store.list()
        if (dangling := matching.truth(filters, "dangling")) is not None:
            found = [image for image in found if (not image.repo_tags) == dangling]
        for ref in filters.get("before", ()):
            at = self.store.resolve(ref).created
            found = [image for image in found if image.created < at]
        for ref in filters.get("since", ()):
            at = self.store.resolve(ref).created
            found = [image for image in found if image.created > at]
        for text in filters.get("until", ()):
            found = [image for image in found if matching.is_older(image.created, times.instant(text))]
        patterns = filters.get("reference", ())
        return [
            image
            for image in found
            if matching.labels_match(filters, image.config.labels) and (not patterns or _is_referred(image, patterns))
        ]

    async def get(self, ref: str) -> Image:
        return self.store.resolve(ref)

    async def history(self, ref: str) -> _Listing:
        return list(self.store.history(self.store.resolve(ref)))

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        name = f"{repo}:{tag}" if tag else repo
        self.store.tag(ref, name)
        self._tell("tag", self.store.resolve(ref).id, name)

    async def remove(self, ref: str, *, force: bool, noprune: bool) -> _Listing:
        """Docker's list of what was untagged and deleted. Raises Conflict while a workload uses it."""
        del noprune  # parents without a name are never kept here
        identity = self.store.resolve(ref).id
        changes = await heavy(self.store.remove, ref, force=force, used=self._users(), running=self._users(running=True))
        for change in changes:
            for what, name in change.items():
                self._tell("untag" if what == "Untagged" else "delete", identity if what == "Untagged" else name, name)
        return list(changes)

    async def load(self, path: Path, progress: Callable[[str], None]) -> _Words:
        found = await heavy(self.store.load, path, self._in_loop(progress))
        for name in found:
            self._tell("load", self.store.resolve(name).id, name)
        return list(found)

    async def save(self, refs: _Words, out: Path) -> None:
        await heavy(self.store.save, refs, out)
        for ref in refs:
            self._tell("save", ref, ref)

    async def import_(self, path: Path, repo: str, tag: str, message: str, changes: _Words) -> Image:
        name = f"{repo}:{tag}" if repo and tag else repo
        image = await heavy(self.store.import_rootfs, path, name, changes, message)
        self._tell("import", image.id, name or image.id)
        return image

    async def bootstrap(self, source: str, name: str, include: _Words, progress: Callable[[str], None]) -> Image:
        image = await heavy(self.store.bootstrap, source, name, include, self._in_loop(progress))
        self._tell("import", image.id, next(iter(image.repo_tags), image.id))
        return image

    async def prune(self, filters: matching.Filters) -> tuple[_Listing, int]:
        """Remove what no workload uses: images without a name, with `dangling=false` all. Returns Docker's list and the bytes.

        Filters: dangling, label, label!, until. Raises Invalid for others.
        """
        matching.check(filters, ("dangling", "label", "label!", "until"))
        dangling = matching.truth(filters, "dangling")
        limit = matching.bound(filters)

        def wanted(image: Image) -> bool:
            return matching.labels_match(filters, image.config.labels) and matching.is_older(image.created, limit)

        changes, freed = await heavy(self.store.prune, dangling_only=dangling is not False, used=self._users(), wanted=wanted)
        for change in changes:
            if "Deleted" in change:
                self._tell("delete", change["Deleted"], change["Deleted"])
        self._hall.events.publish("image", "prune", "", {"reclaimed": str(freed)})
        return list(changes), freed

    def _users(self, *, running: bool = False) -> dict[str, _Words]:
        """The ids of the images that workloads use, with those workloads' ids."""
        found: dict[str, _Words] = {}
        for live in self._hall.workloads:
            if not running or live.record.status.is_up:
                for image in (live.record.image, *(m.source for m in live.record.mounts if m.type == "image")):
                    found.setdefault(image, []).append(live.id)
        return found

    def _tell(self, action: str, actor: str, name: str) -> None:
        self._hall.events.publish("image", action, actor, {"name": name})

    def _in_loop(self, progress: Callable[[str], None]) -> Callable[[str], None]:
        """Progress that is told from a thread, told on the loop."""
        loop = asyncio.get_running_loop()

        def tell(words: str) -> None:
            loop.call_soon_threadsafe(progress, words)

        return tell


def _is_referred(image: Image, patterns: Collection[str]) -> bool:
    """Docker's `reference` filter: shell patterns over `name` and `name:tag`."""
    names = [*image.repo_tags, *(tag.rpartition(":")[0] for tag in image.repo_tags)]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)
