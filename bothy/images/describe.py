"""Images in the words of the Docker Engine API: the bodies of /images/json, /images/{name}/json and /images/{name}/history."""

from __future__ import annotations

import calendar
import re
import time
from typing import Any

from bothy.images.model import Image
from bothy.oci.image import OCI

_SECONDS = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")
MISSING = "<missing>"


def unix_time(text: str) -> int:
    """An RFC 3339 time in seconds since the epoch, 0 for what is none."""
    match = _SECONDS.fullmatch(text)
    if match is None:
        return 0
    try:
        seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0
    if match[2] == "Z":
        return seconds
    offset = int(match[2][1:3]) * 3600 + int(match[2][4:]) * 60
    return seconds - offset if match[2][0] == "+" else seconds + offset


def config(image: Image) -> dict[str, Any]:
    """The image's configuration as the API shows it: everything there, unset lists null."""
    data: dict[str, Any] = OCI.to_data(image.config)
    return {
        "Cmd": None,
        "Entrypoint": None,
        "OnBuild": None,
        **data,
        "Volumes": data["Volumes"] or None,
        "Labels": data["Labels"] or None,
    }


def summary(image: Image, containers: int = -1) -> dict[str, Any]:
    """An entry of /images/json."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Created": unix_time(image.created),
        "Size": image.size,
        "VirtualSize": image.size,
        "SharedSize": -1,
        "Labels": image.config.labels or None,
        "Containers": containers,
    }


def inspect(image: Image, *, upper: str = "", lowers: list[str] | None = None) -> dict[str, Any]:
    """The body of /images/{name}/json. `lowers` are the layer folders, topmost first."""
    data: dict[str, str] = {}
    if lowers:
        data = {"UpperDir": lowers[0]} | ({"LowerDir": ":".join(lowers[1:])} if lowers[1:] else {})
    return {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": image.comment,
        "Created": image.created,
        "DockerVersion": image.docker_version,
        "Author": image.author,
        "Config": config(image),
        "Architecture": image.architecture,
        **({"Variant": image.variant} if image.variant else {}),
        "Os": image.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": data or None},
        "RootFS": {"Type": "layers", "Layers": image.layers},
        "Metadata": {"LastTagTime": image.tagged or "0001-01-01T00:00:00Z"},
    }


def history(image: Image, sizes: list[int]) -> list[dict[str, Any]]:
    """The body of /images/{name}/history, newest first. `sizes` are those of the layers, bottom first."""
    left = iter(sizes)
    steps: list[dict[str, Any]] = [
        {
            "Id": MISSING,
            "Created": unix_time(step.created),
            "CreatedBy": step.created_by,
            "Tags": None,
            "Size": 0 if step.empty_layer else next(left, 0),
            "Comment": step.comment,
        }
        for step in image.history
    ]
    steps.reverse()
    if steps:
        steps[0] |= {"Id": image.id, "Tags": image.repo_tags or None}
    return steps
