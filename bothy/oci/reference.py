"""Names of images, by Docker's rules.

    debian                      docker.io/library/debian:latest
    me/app:1                    docker.io/me/app:1
    localhost:5000/app          localhost:5000/app:latest
    debian@sha256:…             docker.io/library/debian@sha256:…

The left is what people write and read (*familiar*), the right is what is meant (*canonical*). A first component with a dot, a
colon, a capital letter, or `localhost`, is a registry's host; everything else is on Docker Hub.
Source: distribution/reference, reference.go and normalize.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bothy.oci.digest import is_digest

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library/"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_HEX_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """`domain` and `path` are canonical (`docker.io`, `library/debian`); `tag` and `digest` may be empty."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The canonical name without tag and digest: the key under which an image's tags are kept."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as people write it: `debian` for `docker.io/library/debian`."""
        if self.domain != DEFAULT_DOMAIN or _is_host(self.path):
            return self.name
        rest = self.path.removeprefix(OFFICIAL)
        return rest if "/" not in rest else self.path

    def __str__(self) -> str:
        return self._suffixed(self.name)

    @property
    def familiar(self) -> str:
        """The whole reference as people write it: `debian:latest`."""
        return self._suffixed(self.familiar_name)

    def _suffixed(self, name: str) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{name}{tag}{digest}"

    def tagged(self) -> Reference:
        """The same reference, with the tag `latest` where it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same name with another tag (checked) and no digest. Raises ValueError."""
        if not _TAG.fullmatch(tag):
            raise ValueError(f"invalid tag {tag!r}")
        return replace(self, tag=tag, digest="")


def parse(text: str) -> Reference:
    """The reference meant by what a person wrote; no tag is added. Raises ValueError naming what is wrong with it."""
    rest, digest = _cut(text, "@")
    if "@" in text and not is_digest(digest):
        raise ValueError(f"invalid reference {text!r}: invalid digest")
    name, tag = rest, ""
    head, colon, tail = rest.rpartition(":")
    if colon and "/" not in tail:
        name, tag = head, tail
        if not _TAG.fullmatch(tag):
            raise ValueError(f"invalid reference {text!r}: invalid tag")
    if _HEX_ID.fullmatch(name):
        raise ValueError(f"invalid reference {text!r}: a name can not be 64 hex digits, which is an image id")
    domain, path = _split_domain(name)
    if not _DOMAIN.fullmatch(domain):
        raise ValueError(f"invalid reference {text!r}: invalid registry host")
    if path != path.lower():
        raise ValueError(f"invalid reference {text!r}: repository name must be lowercase")
    if not _PATH.fullmatch(path):
        raise ValueError(f"invalid reference {text!r}")
    if len(domain) + 1 + len(path) > NAME_LIMIT:
        raise ValueError(f"invalid reference {text!r}: name longer than {NAME_LIMIT} characters")
    return Reference(domain, path, tag, digest)


def normalise(text: str) -> Reference:
    """`parse`, with the tag `latest` where neither tag nor digest was given. Raises ValueError."""
    return parse(text).tagged()


def _cut(text: str, mark: str) -> tuple[str, str]:
    head, _, tail = text.partition(mark)
    return head, tail


def _is_host(name: str) -> bool:
    """Whether the first component of a name would be read as a registry's host."""
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())


def _split_domain(name: str) -> tuple[str, str]:
    """Host and path of a name, by the rule of the first component."""
    first, _, rest = name.partition("/")
    domain, path = (first, rest) if _is_host(name) else (DEFAULT_DOMAIN, name)
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and path and "/" not in path:
        path = OFFICIAL + path
    return domain, path
