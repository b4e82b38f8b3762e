"""Content digests: `sha256:<64 hex digits>`.

Source: opencontainers/image-spec v1.1, descriptor.md, "Digests". Only sha256 is accepted: it is the one algorithm that every
implementation must know, and Docker knows no other.
"""

from __future__ import annotations

import hashlib
import re

PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether the text is a whole sha256 digest."""
    return _DIGEST.fullmatch(text) is not None


def parse(text: str) -> str:
    """The digest itself, checked. Raises ValueError: what comes from a stranger becomes a path of ours only after this."""
    if not is_digest(text):
        raise ValueError(f"invalid digest {text!r}")
    return text


def encoded(digest: str) -> str:
    """The hex digits of a digest, checked; they are used as file names."""
    return parse(digest)[len(PREFIX) :]


def of(data: bytes) -> str:
    """The digest of some bytes."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The chain id of each layer: what identifies a stack of layers (image-spec config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
