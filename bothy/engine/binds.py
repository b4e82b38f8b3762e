"""Mounts as they are asked for: `-v`, `--mount`, `--tmpfs`, `--volumes-from`, the image's volumes; one list of `Wanted`, checked.

    -v /host:/there[:ro,rw,z,Z,rslave,…]   bind; a missing /host is made, as Docker does
    -v name:/there[:ro,nocopy]             volume, made on first use
    -v /there, VOLUME /there               anonymous volume, removed with the workload by `rm -v` and `--rm`
    --mount type=bind|volume|tmpfs|image,… the same in long (`bothy.engine.mountspecs`); a missing bind source is an error
    --tmpfs /there[:size=64m,mode=1777]
    --volumes-from other[:ro]              the mounts of another workload (`inherited`)

Source of the rules and of the words: moby volume/mounts/linux_parser.go, daemon/volumes.go. What an image declares loses against
what is asked for or inherited, what is inherited against flags; the same target twice among flags is an error.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import replace

from bothy.engine import mountspecs
from bothy.engine.model import Config, HostConfig, MountRecord
from bothy.engine.mountspecs import PROPAGATION, Wanted
from bothy.errors import BothyError, Invalid

# The words of `-v …:words`; one of each group at most.
_MODES = (("rw", "ro"), ("z", "Z"), PROPAGATION, ("nocopy",), ("consistent", "cached", "delegated"))


def wanted(config: Config, host: HostConfig, others: Iterable[Wanted] = ()) -> list[Wanted]:
    """Every mount that is asked for, in the order of the depth of its target; `others` are `inherited`. Raises Invalid."""
    found: dict[str, Wanted] = {}
    driver = host.volume_driver or "local"
    flags = [replace(bind(text), driver=driver) for text in host.binds] + [mountspecs.read(m) for m in host.mounts]
    flags += [mountspecs.tmpfs(target, [w for w in words.split(",") if w]) for target, words in host.tmpfs.items()]
    for mount in flags:
        if mount.target in found:
            raise Invalid(f"Duplicate mount point: {mount.target}")
        found[mount.target] = mount
    for mount in others:
        found.setdefault(mount.target, mount)
    for text in config.volumes:
        # The API allows `source:target` only in Binds; a colon here is a mistake that Docker refuses too.
        mount = Wanted("volume", mountspecs.target_path(text, "volume"), driver=driver)
        found.setdefault(mount.target, mount)
    return sorted(found.values(), key=lambda m: (m.target.count("/"), m.target))


def inherited(mounts: Iterable[MountRecord], mode: str = "") -> list[Wanted]:
    """The mounts of another workload, as `--volumes-from other:mode` wants them: the same volumes, which are not filled again.

    `mode` may make them read-only (`ro`), nothing makes them writable. Raises Invalid.
    """
    words = mode.split(",")
    if not _is_mode(mode) or "nocopy" in words or any(word in PROPAGATION for word in words):
        raise Invalid(f"invalid mode: {mode}")
    return [
        Wanted(
            m.type, m.destination, m.name if m.type in ("volume", "image") else m.source, not m.read_write or "ro" in words,
            copy_up=False, propagation=m.propagation or "rprivate", recursive="bind" not in m.options,
            subpath=m.subpath, options=tuple(m.options) if m.type == "tmpfs" else (),
        )
        for m in mounts if m.listed
    ]  # fmt: skip


def bind(text: str) -> Wanted:
    """What `-v TEXT` means. Raises Invalid."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0] or (len(parts) == 2 and _is_mode(parts[1])):
        raise Invalid(f"invalid volume specification: '{text}'", hint="use SOURCE:TARGET[:OPTIONS]")
    source, target, mode = ("", parts[0], "") if len(parts) == 1 else (parts[0], parts[1], "".join(parts[2:]))
    if not _is_mode(mode):
        raise Invalid(f"invalid mode: {mode}", hint="known options: ro, rw, nocopy, z, Z, [r]private, [r]slave, [r]shared")
    try:
        return _bind(source, target, mode)
    except BothyError as exc:
        raise Invalid(f"invalid volume specification: '{text}': {exc.message}", hint=exc.hint) from None


def _bind(source: str, target: str, mode: str) -> Wanted:
    words = mode.split(",")
    propagation = next((w for w in words if w in PROPAGATION), "")
    kind = "bind" if source.startswith("/") else "volume"
    if not target:
        raise mountspecs.refused(kind, "field Target must not be empty")
    target = mountspecs.target_path(target, kind)
    if kind == "bind":
        return Wanted(
            "bind", target, posixpath.normpath(source), "ro" in words, make_source=True, propagation=propagation or "rprivate",
            mode=mode,
        )  # fmt: skip
    if propagation:
        raise mountspecs.refused("volume", "field BindOptions must not be specified")
    if source:
        mountspecs.volume_name(source)
    return Wanted("volume", target, source, "ro" in words, copy_up="nocopy" not in words, mode=mode)


def _is_mode(mode: str) -> bool:
    """Whether these are words that may stand behind the second colon."""
    words = mode.split(",") if mode else []
    known = all(any(word in group for group in _MODES) for word in words)
    return known and all(sum(word in group for word in words) <= 1 for group in _MODES)
