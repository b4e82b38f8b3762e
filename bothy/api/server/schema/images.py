"""Images in the Docker Engine API's shapes. Pure functions.

Source: moby api/swagger.yaml, `ImageSummary` and `ImageInspect` (v1.47).
"""

from __future__ import annotations

from typing import Any

from bothy.api.server.schema import values
from bothy.images import describe
from bothy.images.model import Image
from bothy.oci.image import OCI

# What an image's Config never says and had all the same up to API 1.49.
_OF_CONTAINERS: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}


def summary(image: Image, containers: int = -1) -> dict[str, Any]:
    """An entry of `GET /images/json`."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Created": describe.unix_time(image.created),  # an archive says it: it may be anything
        "Size": image.size,
        "VirtualSize": image.size,
        "SharedSize": -1,
        "Labels": image.config.labels or None,
        "Containers": containers,
    }


def config(image: Image) -> dict[str, Any]:
    """The image's Config with every field that clients read."""
    data: dict[str, Any] = {**_OF_CONTAINERS, "Cmd": None, "Entrypoint": None, "OnBuild": None, **OCI.to_data(image.config)}
    data["Volumes"] = data["Volumes"] or None
    data["Labels"] = data["Labels"] or None
    for key in ("ExposedPorts", "StopSignal"):
        if not data[key]:
            del data[key]
    return data


def inspect(image: Image) -> dict[str, Any]:
    """`GET /images/{name}/json`. Docker has left out `Container` and `ContainerConfig` since 1.45; docker-compose 1.29 looks into
    the latter whatever version it has agreed on."""
    data: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": image.comment,
        "Created": image.created,
        "DockerVersion": image.docker_version,
        "Author": image.author,
        "Config": config(image),
        "Container": "",
        "ContainerConfig": config(image),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": image.layers},
        "Metadata": {"LastTagTime": values.moment(image.tagged)},
    }
    if image.variant:
        data["Variant"] = image.variant
    return data
