"""A container's interfaces: veth pairs, one end of each on a bridge of the host, the other in the container's network namespace.

A pair goes with the namespace that its inner end is in, in the kernel's own time; or at once, by `detach`.
"""

from __future__ import annotations

import os

from bothy.errors import StageError
from bothy.linux import links, namespaces
from bothy.linux.links import Attachment, Interface


def attach(netns: int, attachment: Attachment) -> None:
    """Make the pair, its inner end configured in the network namespace `netns`; packets pass when this returns.

    The caller is for a moment in that namespace, so it has one thread. Raises StageError (`network`); nothing is left then.
    """
    link, bridge, interface = attachment.link, attachment.bridge, attachment.interface
    try:
        try:
            links.connect(link, bridge, netns, interface, isolated=attachment.isolated)
        except FileExistsError:  # of our last life: the kernel takes its time to let go of a dead namespace's links
            links.delete_link(link, missing_ok=True)
            links.connect(link, bridge, netns, interface, isolated=attachment.isolated)
    except OSError as exc:
        raise _failure(exc, link) from exc


def attach_running(pidfd: int, attachment: Attachment) -> None:
    """`attach` for a container that runs, by its init. Raises StageError."""
    try:
        here = namespaces.open_namespace("network")
        try:
            namespaces.join(pidfd, "network")
            there = namespaces.open_namespace("network")
            namespaces.join(here, "network")
        finally:
            os.close(here)
    except OSError as exc:
        raise _failure(exc, attachment.link) from exc
    try:
        attach(there, attachment)
    finally:
        os.close(there)


def detach(link: str) -> None:
    """Delete a pair by its outer end; one that is not there is no error. Raises StageError (`network`)."""
    try:
        links.delete_link(link, missing_ok=True)
    except OSError as exc:
        raise _failure(exc, link) from exc


def reroute(pidfd: int, interface: Interface) -> None:
    """Give an interface in the network namespace of a process its routes, in the place of those to the same destinations.

    The calling process stays in that namespace: a helper's. Raises StageError (`network`).
    """
    try:
        namespaces.join(pidfd, "network")
        links.add_routes(interface)
    except OSError as exc:
        raise _failure(exc, interface.name) from exc


def _failure(exc: OSError, path: str) -> StageError:
    return StageError("network", exc.strerror or str(exc), errno=exc.errno or 0, path=path)
