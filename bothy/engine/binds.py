"""Mounts as they are asked for: `-v`, `--mount`, `--tmpfs`, the image's volumes; one list of `Wanted`, checked.

    -v /host:/there[:ro,rw,z,Z,rslave,…]   bind; a missing /host is made, as Docker does
    -v name:/there[:ro,nocopy]             volume, made on first use
    -v /there, VOLUME /there               anonymous volume, removed with the workload by `rm -v` and `--rm`
    --mount type=bind|volume|tmpfs,…       the same in long; a missing bind source is an error
    --tmpfs /there[:size=64m,mode=1777]

Source of the rules: moby volume/mounts/linux_parser.go. What comes later in that list loses against what comes first for the
same target, except that the same target twice from flags is an error.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bothy.engine.model import Config, HostConfig, MountPoint
from bothy.errors import Invalid

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_TMPFS_WORDS = "ro rw exec noexec suid nosuid dev nodev sync async dirsync noatime nodiratime relatime norelatime strictatime"
_IGNORED_MODES = ("z", "Z", "cached", "delegated", "consistent", "rw", "ro", "nocopy", "")


@dataclass(frozen=True)
class Wanted:
    """One mount to make. `kind` is bind, volume or tmpfs. `source` is a host path or a volume's name (empty: anonymous)."""

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    make_source: bool = False
    copy_up: bool = True
    propagation: str = "rprivate"
    mode: str = ""
    options: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = "local"


def wanted(config: Config, host: HostConfig) -> list[Wanted]:
    """Every mount that is asked for, in the order of the depth of its target. Raises Invalid."""
    found: dict[str, Wanted] = {}
    flags = [bind(text) for text in host.binds] + [_mount_point(m) for m in host.mounts]
    flags += [tmpfs(target, options) for target, options in host.tmpfs.items()]
    for mount in flags:
        if mount.target in found:
            raise Invalid(f"duplicate mount point: {mount.target}")
        found[mount.target] = mount
    for text in config.volumes:
        # The API allows `source:target` only in Binds; a colon here is a mistake that Docker refuses too.
        mount = Wanted("volume", target_path(text, text))
        found.setdefault(mount.target, mount)
    return sorted(found.values(), key=lambda m: (m.target.count("/"), m.target))


def bind(text: str) -> Wanted:
    """What `-v TEXT` means. Raises Invalid."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts[:2]):
        raise Invalid(f"invalid volume specification: '{text}'", hint="use SOURCE:TARGET[:OPTIONS]")
    if len(parts) == 1:
        return Wanted("volume", target_path(parts[0], text))
    source, target, mode = parts[0], target_path(parts[1], text), parts[2] if len(parts) == 3 else ""
    words = mode.split(",") if mode else []
    for word in words:
        if word not in _IGNORED_MODES and word not in _PROPAGATION:
            raise Invalid(
                f"invalid mode: {mode} in '{text}'", hint="known options: ro, rw, nocopy, z, Z, [r]private, [r]slave, [r]shared"
            )
    propagation = next((w for w in words if w in _PROPAGATION), "")
    if source.startswith("/"):
        return Wanted(
            "bind", target, posixpath.normpath(source), "ro" in words, make_source=True,
            propagation=propagation or "rprivate", mode=mode,
        )  # fmt: skip
    if propagation:
        raise Invalid(f"invalid mode: {mode} in '{text}'", hint="propagation is for bind mounts")
    return Wanted("volume", target, volume_name(source), "ro" in words, copy_up="nocopy" not in words, mode=mode)


def volume_name(name: str) -> str:
    """The name, if a volume may be called so. Raises Invalid."""
    if not VOLUME_NAME.fullmatch(name):
        raise Invalid(
            f"'{name}' includes invalid characters for a local volume name, only '[a-zA-Z0-9][a-zA-Z0-9_.-]' are allowed",
            hint="use an absolute path to mount a folder of the host",
        )
    return name


def target_path(text: str, whole: str) -> str:
    """A mount's target, normalised. Raises Invalid for one that is relative or the root."""
    if not text.startswith("/") or ":" in text:
        raise Invalid(f"invalid mount '{whole}': mount path must be absolute: '{text}'")
    normal = posixpath.normpath("/" + text.lstrip("/"))
    if normal == "/":
        raise Invalid(f"invalid mount '{whole}': destination can't be '/'")
    return normal


def tmpfs(target: str, options: str) -> Wanted:
    """What `--tmpfs TARGET:OPTIONS` means; Docker's defaults are noexec, nosuid, nodev. Raises Invalid."""
    words = [w for w in options.split(",") if w]
    for word in words:
        _check_tmpfs(word, target)
    chosen = {w.removeprefix("no") for w in words}
    defaults = [f"no{w}" for w in ("exec", "suid", "dev") if w not in chosen]
    return Wanted("tmpfs", target_path(target, target), read_only="ro" in words, options=(*defaults, *words), mode=options)


def _check_tmpfs(word: str, target: str) -> None:
    key, equals, value = word.partition("=")
    if not equals and word in _TMPFS_WORDS.split():
        return
    patterns = {"size": r"\d+[kKmMgG%]?", "mode": r"[0-7]{3,4}", "uid": r"\d+", "gid": r"\d+", "nr_inodes": r"\d+[kKmMgG]?"}
    if not equals or not re.fullmatch(patterns.get(key, r"(?!)"), value):
        raise Invalid(
            f"invalid tmpfs option {word!r} for {target}", hint="known options: size, mode, uid, gid, nr_inodes, ro, exec, …"
        )


def _mount_point(mount: MountPoint) -> Wanted:
    """An entry of HostConfig.Mounts. Raises Invalid."""
    if not mount.target:
        raise Invalid(f"invalid mount config for type '{mount.type}': field Target must not be empty")
    target = target_path(mount.target, mount.target)
    if mount.type == "bind":
        if not mount.source.startswith("/"):
            raise Invalid(f"invalid mount config for type 'bind': invalid mount path: '{mount.source}' mount path must be absolute")
        return Wanted(
            "bind", target, posixpath.normpath(mount.source), mount.read_only,
            make_source=bool(mount.bind_options.get("CreateMountpoint")),
            propagation=_propagation(mount.bind_options.get("Propagation") or "rprivate"),
        )  # fmt: skip
    if mount.type == "volume":
        options = mount.volume_options
        driver = (options.get("DriverConfig") or {}).get("Name") or "local"
        return Wanted(
            "volume", target, volume_name(mount.source) if mount.source else "", mount.read_only,
            copy_up=not options.get("NoCopy"), labels=dict(options.get("Labels") or {}), driver=str(driver),
        )  # fmt: skip
    if mount.type == "tmpfs":
        if mount.source:
            raise Invalid("invalid mount config for type 'tmpfs': field Source must not be specified")
        size, mode = mount.tmpfs_options.get("SizeBytes"), mount.tmpfs_options.get("Mode")
        words = [f"size={int(size)}"] if size else []
        words += [f"mode={int(mode):o}"] if mode else []
        return tmpfs(target, ",".join([*words, "ro"] if mount.read_only else words))
    raise Invalid(f"mount type unknown: '{mount.type}'", hint="known types: bind, volume, tmpfs")


def _propagation(word: str) -> str:
    if word not in _PROPAGATION:
        raise Invalid(f"invalid propagation mode: {word}")
    return str(word)


def targets(mounts: Iterable[Wanted]) -> set[str]:
    return {m.target for m in mounts}
