"""`--volume`, `--mount` and `--tmpfs` into the API's Binds, Volumes, Mounts and Tmpfs.

Only the shape is checked here; whether a source exists and a target is absolute is the engine's business.
Sources: docker/cli opts/mount.go and cli/command/container/opts.go.
"""

from __future__ import annotations

import os

from bothy.cli import values
from bothy.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VOLUME_HINT = "--volume takes [source:]path[:options], for instance /srv/www:/www:ro"
MOUNT_HINT = "--mount takes key=value,…: type, source, target, readonly, bind-propagation, volume-nocopy, tmpfs-size, tmpfs-mode, …"
KEYS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
SWITCHES = ("readonly", "volume-nocopy", "bind-nonrecursive", "bind-create-mountpoint", "bind-create-src")
OPTIONS = (("BindOptions", "bind"), ("VolumeOptions", "volume"), ("TmpfsOptions", "tmpfs"), ("ImageOptions", "image"))


def volumes(texts: list[str]) -> tuple[list[str], list[str]]:
    """(Binds, anonymous volumes) of `--volume` values. A relative source (`.`, `./x`) is made absolute, a name stays a volume."""
    binds, anonymous = [], []
    for text in texts:
        parts = text.split(":")
        if len(parts) > 3:
            raise UsageError(f"invalid volume {text!r}: too many colons", hint=VOLUME_HINT)
        if not all(parts):
            raise UsageError(f"invalid volume {text!r}: there is nothing between two colons", hint=VOLUME_HINT)
        if len(parts) == 1:
            anonymous.append(text)
            continue
        binds.append(":".join([absolute(parts[0]), *parts[1:]]))
    return binds, anonymous


def absolute(source: str) -> str:
    """A path that begins with a dot, made absolute; anything else as it is."""
    return os.path.abspath(source) if source in (".", "..") or source.startswith(("./", "../")) else source


def tmpfs(texts: list[str]) -> dict[str, str]:
    """Tmpfs of `--tmpfs` values."""
    return {path: options for path, _, options in (text.partition(":") for text in texts)}


def mount(text: str) -> dict[str, Any]:
    """One entry of HostConfig.Mounts. Raises UsageError for unknown keys and missing values."""
    entry: dict[str, Any] = {"Type": "volume"}
    for part in fields(text):
        key, equals, value = part.partition("=")
        key = KEYS.get(key.lower(), key.lower())
        if key in SWITCHES:
            if not equals or _switch(value, text):
                _place_switch(entry, key)
        elif not equals:
            raise UsageError(f"invalid mount {text!r}: {key!r} needs a value", hint=MOUNT_HINT)
        elif not _place(entry, key, value, text):
            raise UsageError(f"invalid mount {text!r}: there is no key {key!r}", hint=MOUNT_HINT)
    if not entry.get("Target"):
        raise UsageError(f"invalid mount {text!r}: target is missing", hint=MOUNT_HINT)
    _check_recursive(entry, text)
    for options, kind in OPTIONS:
        if options in entry and entry["Type"] != kind:
            raise UsageError(f"invalid mount {text!r}: options for {kind} do not fit type {entry['Type']}", hint=MOUNT_HINT)
    return entry


def _place_switch(entry: dict[str, Any], key: str) -> None:
    """Put a switch that is on where the API has it."""
    if key == "readonly":
        entry["ReadOnly"] = True
    elif key == "volume-nocopy":
        entry.setdefault("VolumeOptions", {})["NoCopy"] = True
    else:
        entry.setdefault("BindOptions", {})["NonRecursive" if key == "bind-nonrecursive" else "CreateMountpoint"] = True


def _check_recursive(entry: dict[str, Any], text: str) -> None:
    """What is read-only below a mount can be said of a read-only one only, and not of one in which others mount things."""
    options = entry.get("BindOptions") or {}
    for name, word in (("ReadOnlyNonRecursive", "writable"), ("ReadOnlyForceRecursive", "readonly")):
        if options.get(name) and not entry.get("ReadOnly"):
            raise UsageError(f"invalid mount {text!r}: bind-recursive={word} requires readonly", hint=MOUNT_HINT)
    if options.get("ReadOnlyForceRecursive") and options.get("Propagation", "rprivate") != "rprivate":
        raise UsageError(f"invalid mount {text!r}: bind-recursive=readonly requires bind-propagation=rprivate", hint=MOUNT_HINT)


def _place(entry: dict[str, Any], key: str, value: str, text: str) -> bool:
    """Put one key's value where the API has it; False if there is no such key."""
    if key == "type":
        entry["Type"] = value.lower()
    elif key == "source":
        entry["Source"] = absolute(value)
    elif key == "target":
        entry["Target"] = value
    elif key == "consistency":
        entry["Consistency"] = value.lower()
    elif key.startswith("bind-"):
        return _place_bind(entry.setdefault("BindOptions", {}), key, value, text)
    elif key.startswith("volume-"):
        return _place_volume(entry.setdefault("VolumeOptions", {}), key, value)
    elif key.startswith("tmpfs-"):
        return _place_tmpfs(entry.setdefault("TmpfsOptions", {}), key, value, text)
    elif key == "image-subpath":
        entry.setdefault("ImageOptions", {})["Subpath"] = value
    else:
        return False
    return True


def _place_bind(options: dict[str, Any], key: str, value: str, text: str) -> bool:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-recursive" and value in ("enabled", "disabled", "writable", "readonly"):
        if value == "disabled":
            options["NonRecursive"] = True
        elif value == "writable":
            options["ReadOnlyNonRecursive"] = True
        elif value == "readonly":
            options["ReadOnlyForceRecursive"] = True
    elif key == "bind-recursive":
        raise UsageError(f"invalid mount {text!r}: bind-recursive is enabled, disabled, writable or readonly", hint=MOUNT_HINT)
    else:
        return False
    return True


def _place_volume(options: dict[str, Any], key: str, value: str) -> bool:
    if key == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        name, option = values.pair(value, "mount volume-opt")
        options.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = option
    elif key == "volume-label":
        name, label = values.pair(value, "mount volume-label")
        options.setdefault("Labels", {})[name] = label
    elif key == "volume-subpath":
        options["Subpath"] = value
    else:
        return False
    return True


def _place_tmpfs(options: dict[str, Any], key: str, value: str, text: str) -> bool:
    if key == "tmpfs-size":
        options["SizeBytes"] = values.size(value, "mount tmpfs-size")
    elif key == "tmpfs-mode":
        try:
            options["Mode"] = int(value, 8)
        except ValueError:
            raise UsageError(f"invalid mount {text!r}: tmpfs-mode is an octal number such as 1777", hint=MOUNT_HINT) from None
    elif key == "tmpfs-opt":
        options.setdefault("Options", []).append(value.split("=", 1))
    else:
        return False
    return True


def _switch(value: str, text: str) -> bool:
    if value in ("true", "1"):
        return True
    if value in ("false", "0"):
        return False
    raise UsageError(f"invalid mount {text!r}: {value!r} is neither true nor false", hint=MOUNT_HINT)


def fields(text: str) -> list[str]:
    """Comma-separated fields, where a field in double quotes may hold commas (CSV)."""
    if '"' not in text:
        return text.split(",")
    found, field, quoted = [], "", False
    for letter in text:
        if letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted:
            found.append(field)
            field = ""
        else:
            field += letter
    if quoted:
        raise UsageError(f"invalid mount {text!r}: a quote is not closed", hint=MOUNT_HINT)
    return [*found, field]
