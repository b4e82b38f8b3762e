"""The image configuration: what an image is made of and how it wants to be run.

Source: opencontainers/image-spec v1.1, config.md, and Docker's additions (Healthcheck, Shell, OnBuild). `OCI` is the codec for
these documents: snake_case outside, Docker's PascalCase inside `config`. Fields that are not listed here are ignored when
reading; the configuration as it came stays in the image store as a blob, byte for byte, since its digest is the image's id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bothy.jsonable import Codec


def _plain(name: str) -> str:
    return name


OCI = Codec(_plain, "oci")


@dataclass(frozen=True)
class Healthcheck:
    """Durations in nanoseconds. `test` begins with NONE, CMD or CMD-SHELL."""

    test: list[str] = field(default_factory=list, metadata={"oci": "Test"})
    interval: int = field(default=0, metadata={"oci": "Interval"})
    timeout: int = field(default=0, metadata={"oci": "Timeout"})
    start_period: int = field(default=0, metadata={"oci": "StartPeriod"})
    start_interval: int = field(default=0, metadata={"oci": "StartInterval"})
    retries: int = field(default=0, metadata={"oci": "Retries"})


@dataclass(frozen=True)
class ImageConfig:
    """How containers of the image are run, unless they are told otherwise. None is different from empty for `cmd`,
    `entrypoint` and `shell`."""

    user: str = field(default="", metadata={"oci": "User"})
    exposed_ports: dict[str, Any] = field(default_factory=dict, metadata={"oci": "ExposedPorts"})
    env: list[str] = field(default_factory=list, metadata={"oci": "Env"})
    entrypoint: list[str] | None = field(default=None, metadata={"oci": "Entrypoint"})
    cmd: list[str] | None = field(default=None, metadata={"oci": "Cmd"})
    volumes: dict[str, Any] = field(default_factory=dict, metadata={"oci": "Volumes"})
    working_dir: str = field(default="", metadata={"oci": "WorkingDir"})
    labels: dict[str, str] = field(default_factory=dict, metadata={"oci": "Labels"})
    stop_signal: str = field(default="", metadata={"oci": "StopSignal"})
    stop_timeout: int | None = field(default=None, metadata={"oci": "StopTimeout"})
    healthcheck: Healthcheck | None = field(default=None, metadata={"oci": "Healthcheck"})
    shell: list[str] | None = field(default=None, metadata={"oci": "Shell"})
    on_build: list[str] | None = field(default=None, metadata={"oci": "OnBuild"})


@dataclass(frozen=True)
class RootFS:
    """`diff_ids` are the digests of the layers' uncompressed tars, bottom first."""

    diff_ids: list[str] = field(default_factory=list)
    type: str = "layers"


@dataclass(frozen=True)
class History:
    """One step in the making of an image; a step with `empty_layer` has no layer."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True)
class ImageDocument:
    """The whole configuration blob."""

    architecture: str
    os: str
    rootfs: RootFS
    created: str = ""
    author: str = ""
    comment: str = ""
    variant: str = ""
    docker_version: str = ""
    config: ImageConfig = field(default_factory=ImageConfig)
    history: list[History] = field(default_factory=list)


def without_defaults(config: ImageConfig) -> dict[str, Any]:
    """The JSON form of a configuration with nothing in it that was not set, as Docker and buildah write it."""
    data: dict[str, Any] = OCI.to_data(config)
    return {key: value for key, value in data.items() if value not in ("", [], {}) or key in ("Cmd", "Entrypoint")}


def document_data(document: ImageDocument) -> dict[str, Any]:
    """The JSON form of an image document with nothing in it that was not set."""
    data: dict[str, Any] = OCI.to_data(document)
    data["config"] = without_defaults(document.config)
    data["history"] = [{k: v for k, v in entry.items() if v} for entry in data["history"]]
    return {key: value for key, value in data.items() if value not in ("", [])}
