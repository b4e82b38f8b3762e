"""A sandbox: a user namespace and the namespaces it owns, made ahead of need and held as file descriptors only.

No process lives in it: a helper child makes the namespaces, its parent opens them from /proc and the child ends.
The spawner keeps some of these ready; a keeper inherits one by fork.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sandbox:
    """The fds are owned by who holds this value; `userns` is -1 with `id_base` 0 (no user namespace), `netns` is -1 for the
    host's network."""

    id_base: int
    userns: int
    netns: int
    ipcns: int
    utsns: int

    def close(self) -> None:
        """Let go of the fds; namespaces that nothing else holds vanish."""
        raise NotImplementedError


def make(id_base: int, network: str = "private") -> Sandbox:
    """A new sandbox. `network` is `private` (a new namespace, loopback up), `host`, or the path of a namespace to join.

    Takes about a millisecond. Raises StageError (stage `sandbox`); nothing is left.
    """
    raise NotImplementedError
