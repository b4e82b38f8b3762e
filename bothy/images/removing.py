"""Untagging and deleting images by Docker's rules: `rmi`, `image prune`.

By name: the name goes; the image goes with its last name, unless a workload uses it (then --force takes the name alone).
By id: an image with names in several repositories needs --force; one that runs is never deleted.
An image that a stopped workload uses and that is removed by force loses its names but stays, unnamed, until that workload is gone:
the workload can still be started.
Source: moby daemon/images/image_delete.go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from bothy.errors import Conflict
from bothy.images.content import Content
from bothy.oci import digest as digests
from bothy.oci import reference as references

SHORT = 12


def short(image: str) -> str:
    return image.removeprefix(digests.PREFIX)[:SHORT]


def _user(image: str, used: Collection[str]) -> str:
    """` <workload>` if it is known which one uses the image (the mapping's value: an id, or a list of them)."""
    if not isinstance(used, Mapping):
        return ""
    users = used[image]
    return f" {(users if isinstance(users, str) else users[0])[:SHORT]}"


def remove(
    content: Content, ref: str, image: str, *, force: bool, used: Collection[str], running: Collection[str]
) -> list[dict[str, str]]:
    """Remove a name or an image; returns Docker's list of {"Untagged"} and {"Deleted"}. Raises Conflict, having changed nothing."""
    names = [*(name for name, _ in content.database.tags(image)), *content.database.digests(image)]
    by_name = _named(content, ref, image)
    if by_name is not None:
        last = len(names) == 1
        if last and image in used and not force:
            raise Conflict(
                f"conflict: unable to remove repository reference {ref!r} (must force) - "
                f"container{_user(image, used)} is using its referenced image {short(image)}"
            )
        if not last or image in used:
            content.database.untag(by_name)
            return [_untagged(by_name)]
    else:
        _check_id(image, names, force=force, used=used, running=running)
    return _delete(content, image, names, keep=image in used)


def _named(content: Content, ref: str, image: str) -> str | None:
    """The canonical name that `ref` is of the image, or None if it is an id."""
    if digests.is_digest(ref):
        return None
    try:
        name = str(references.normalise(ref))
    except ValueError:
        return None
    return name if content.database.named(name) == image else None


def _check_id(image: str, names: list[str], *, force: bool, used: Collection[str], running: Collection[str]) -> None:
    """Whether an image may be deleted by its id. Raises Conflict."""
    if image in running:
        why = f"image is being used by running container{_user(image, used)}"
        raise Conflict(f"conflict: unable to delete {short(image)} (cannot be forced) - {why}")
    repositories = {references.parse(name).name for name in names}
    if len(repositories) > 1 and not force:
        raise Conflict(f"conflict: unable to delete {short(image)} (must be forced) - image is referenced in multiple repositories")
    if image in used and not force:
        why = f"image is being used by stopped container{_user(image, used)}"
        raise Conflict(f"conflict: unable to delete {short(image)} (must be forced) - {why}")


def _delete(content: Content, image: str, names: list[str], *, keep: bool) -> list[dict[str, str]]:
    changes = [_untagged(name) for name in names]
    if keep:
        for name in names:
            content.database.untag(name)
        return changes
    diff_ids = content.image(image).layers
    chain = digests.chain_ids(diff_ids)
    gone = {layer.diff_id for layer in content.forget(image)}
    deleted = [chain_id for chain_id, diff_id in zip(chain, diff_ids, strict=True) if diff_id in gone]
    return [*changes, {"Deleted": image}, *({"Deleted": chain_id} for chain_id in reversed(deleted))]


def _untagged(name: str) -> dict[str, str]:
    return {"Untagged": references.parse(name).familiar}
