"""One mount that is asked for, as a value (`Wanted`), and the reading of `HostConfig.Mounts` and of tmpfs words.

Rules and words of errors: moby volume/mounts/linux_parser.go, validate.go. Clients match on them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bothy.engine.model import MountPoint
from bothy.errors import Invalid

PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_TMPFS_WORDS = "ro rw exec noexec suid nosuid dev nodev sync async dirsync noatime nodiratime relatime norelatime strictatime"
_TMPFS_VALUES = {
    "size": r"\d+[kKmMgG%]?", "mode": r"[0-7]{3,4}", "uid": r"\d+", "gid": r"\d+", "nr_inodes": r"\d+[kKmMgG]?",
    "nr_blocks": r"\d+[kKmMgG]?", "huge": r"never|always|within_size|advise",
}  # fmt: skip
_OWN_OPTIONS = {"bind": "BindOptions", "volume": "VolumeOptions", "tmpfs": "TmpfsOptions", "image": "ImageOptions"}


@dataclass(frozen=True)
class Wanted:
    """One mount to make. `kind` is bind, volume, tmpfs or image. `source` is a host path, a volume's name (empty: anonymous), an
    image's name.

    `recursive`: mounts below a bind's source come along; `deep`: they are read-only too, if it is. `subpath` is what is mounted of
    a volume or an image. `options` are a tmpfs's words. `listed`: among Mounts when it is inspected.
    """

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    make_source: bool = False
    copy_up: bool = True
    propagation: str = "rprivate"
    recursive: bool = True
    deep: bool = True
    subpath: str = ""
    mode: str = ""
    options: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = "local"
    driver_options: Mapping[str, str] = field(default_factory=dict)
    listed: bool = True

    def words(self) -> list[str]:
        """The words of mount(8), as the OCI runtime spec has them; `X-mount.subdir` is util-linux's."""
        if self.kind == "tmpfs":
            return list(self.options)
        words = ["rbind" if self.recursive else "bind", "rw", self.propagation]
        if self.read_only:
            words[1] = "rro" if self.deep and self.recursive else "ro"
        if self.subpath:
            words.append(f"X-mount.subdir={self.subpath}")
        return words


def read(mount: MountPoint) -> Wanted:
    """An entry of HostConfig.Mounts. Raises Invalid."""
    readers = {"bind": _bind, "volume": _volume, "tmpfs": _tmpfs, "image": _image}
    if not mount.target:
        raise refused(mount.type, "field Target must not be empty")
    target = target_path(mount.target, mount.type)
    if mount.type not in readers:
        raise refused(mount.type, "mount type unknown")
    given = {
        "BindOptions": mount.bind_options, "VolumeOptions": mount.volume_options, "TmpfsOptions": mount.tmpfs_options,
        "ImageOptions": mount.image_options,
    }  # fmt: skip
    for name, options in given.items():
        if options and name != _OWN_OPTIONS[mount.type]:
            raise refused(mount.type, f"field {name} must not be specified")
    return readers[mount.type](mount, target)


def _bind(mount: MountPoint, target: str) -> Wanted:
    options = mount.bind_options
    if not mount.source:
        raise refused("bind", "field Source must not be empty")
    propagation = _text(options, "Propagation", "bind") or "rprivate"
    if propagation not in PROPAGATION:
        raise refused("bind", f"invalid propagation mode: {propagation}")
    if not mount.source.startswith("/"):
        raise refused("bind", f"invalid mount path: '{mount.source}' mount path must be absolute")
    if options.get("ReadOnlyForceRecursive"):
        if not mount.read_only:
            raise refused("bind", "ReadOnlyForceRecursive must not be set on a mount that is not ReadOnly")
        if options.get("NonRecursive") or options.get("ReadOnlyNonRecursive"):
            raise refused("bind", "ReadOnlyForceRecursive contradicts NonRecursive and ReadOnlyNonRecursive")
    return Wanted(
        "bind", target, posixpath.normpath(mount.source), mount.read_only,
        make_source=bool(options.get("CreateMountpoint")), propagation=propagation,
        recursive=not options.get("NonRecursive"), deep=not options.get("ReadOnlyNonRecursive"),
    )  # fmt: skip


def _volume(mount: MountPoint, target: str) -> Wanted:
    options = mount.volume_options
    subpath = _text(options, "Subpath", "volume")
    if subpath and not mount.source:
        raise refused("volume", "must not set Subpath when using anonymous volumes")
    if mount.read_only and not mount.source:
        raise refused("volume", "must not set ReadOnly mode when using anonymous volumes")
    driver = options.get("DriverConfig") or {}
    if not isinstance(driver, dict):
        raise refused("volume", "DriverConfig: expected an object")
    return Wanted(
        "volume", target, volume_name(mount.source) if mount.source else "", mount.read_only,
        copy_up=not options.get("NoCopy"), subpath=_inside(subpath, "volume"), labels=_texts(options, "Labels", "volume"),
        driver=_text(driver, "Name", "volume") or "local", driver_options=_texts(driver, "Options", "volume"),
    )  # fmt: skip


def _tmpfs(mount: MountPoint, target: str) -> Wanted:
    if mount.source:
        raise refused("tmpfs", "field Source must not be specified")
    options = mount.tmpfs_options
    words = ["ro"] if mount.read_only else []
    for key, form in (("SizeBytes", "size={}"), ("Mode", "mode={:o}")):
        number = options.get(key)
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
            raise refused("tmpfs", f"{key}: expected a number")
        words += [form.format(number)] if number else []
    for pair in options.get("Options") or []:
        if not isinstance(pair, list) or not all(isinstance(part, str) for part in pair) or len(pair) not in (1, 2):
            raise refused("tmpfs", "invalid option array length")
        words.append("=".join(pair))
    return tmpfs(target, words, listed=True)


def _image(mount: MountPoint, target: str) -> Wanted:
    if not mount.source:
        raise refused("image", "field Source must not be empty")
    subpath = _inside(_text(mount.image_options, "Subpath", "image"), "image")
    return Wanted("image", target, mount.source, read_only=True, copy_up=False, propagation="", subpath=subpath)


def refused(kind: str, why: str) -> Invalid:
    """What Docker says of a mount that can not be."""
    return Invalid(f'invalid mount config for type "{kind}": {why}')


def target_path(text: str, kind: str) -> str:
    """A mount's target, normalised. Raises Invalid for one that is relative or the root."""
    normal = posixpath.normpath("/" + text.lstrip("/")) if text.startswith("/") else text
    if normal == "/":
        raise refused(kind, "invalid specification: destination can't be '/'")
    if not normal.startswith("/") or ":" in normal or "\0" in normal:
        raise refused(kind, f"invalid mount path: '{text}' mount path must be absolute")
    return normal


def volume_name(name: str) -> str:
    """The name, if a volume may be called so. Raises Invalid."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name):
        raise Invalid(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
            "allowed. If you intended to pass a host directory, use absolute path"
        )
    return name


def tmpfs(target: str, words: list[str], *, listed: bool = False) -> Wanted:
    """What `--tmpfs TARGET:WORDS` means; Docker's defaults are noexec, nosuid, nodev. Raises Invalid."""
    for word in words:
        key, equals, value = word.partition("=")
        if not (re.fullmatch(_TMPFS_VALUES.get(key, r"(?!)"), value) if equals else word in _TMPFS_WORDS.split()):
            raise Invalid(
                f'invalid tmpfs option ["{word}"] for {target}', hint="known options: size, mode, uid, gid, nr_inodes, ro, exec, …"
            )
    chosen = {w.removeprefix("no") for w in words}
    defaults = [f"no{w}" for w in ("exec", "suid", "dev") if w not in chosen]
    return Wanted("tmpfs", target_path(target, "tmpfs"), read_only="ro" in words, options=(*defaults, *words), listed=listed)


def _inside(subpath: str, kind: str) -> str:
    """A path that stays below where it begins, as far as can be seen. Raises Invalid."""
    if not subpath:
        return ""
    normal = posixpath.normpath(subpath)
    if subpath.startswith("/") or normal == ".." or normal.startswith("../") or "\0" in subpath:
        raise refused(kind, "subpath must be a relative path within the volume")
    return "" if normal == "." else normal


def _text(options: Mapping[str, Any], key: str, kind: str) -> str:
    value = options.get(key) or ""
    if not isinstance(value, str):
        raise refused(kind, f"{key}: expected a text")
    return value


def _texts(options: Mapping[str, Any], key: str, kind: str) -> dict[str, str]:
    value = options.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise refused(kind, f"{key}: expected texts")
    return {str(name): text for name, text in value.items()}
