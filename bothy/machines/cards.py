"""A machine's network cards as the host has them: behind each a tap, which is on a bridge or put away.

    the host's network                          QEMU's own network namespace
    bridge ── by<id>    of card 0, up           spare1, spare2, spare3    of cards without a network, down

A microvm takes no new device while it runs, so each machine has all its cards from its beginning (decision 0086); the guest hides
those that lead nowhere. A tap lives as long as a descriptor of it. The kernel takes some 15 ms to take one down with the last of
them; so that this is not the one of a QEMU that is waited for, the keeper has them too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bothy.errors import StageError
from bothy.linux import links, namespaces
from bothy.linux.links import Attachment

_NOWHERE = "bothy-none%d"
_FORMER = "bothy-old%d"


@dataclass
class Cards:
    """`taps` are descriptors, by number of card. `leads`: where each leads, None for a card that is free. `away`: the cards whose
    taps are put away, in QEMU's network namespace."""

    taps: Sequence[int]
    leads: list[Attachment | None]
    away: set[int]

    def take(self, attachment: Attachment) -> int:
        """A free card, which from here on is that attachment's. Raises StageError."""
        for card, lead in enumerate(self.leads):
            if lead is None:
                self.leads[card] = attachment
                return card
        raise StageError("network", f"all {len(self.taps)} network cards of the machine are in use")

    def find(self, link: str) -> int | None:
        """The card of an attachment, by its `link`."""
        return next((card for card, lead in enumerate(self.leads) if lead is not None and lead.link == link), None)

    def close(self) -> None:
        for tap in self.taps:
            os.close(tap)


def open_tap(attachment: Attachment) -> int:
    """The tap of an attachment, on its bridge. Raises StageError."""
    with _stage(attachment.link):
        try:
            tap = links.open_tap(attachment.link)
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                raise
            _clear(attachment.link)
            tap = links.open_tap(attachment.link)
        try:
            plug(tap, attachment)
        except BaseException:
            os.close(tap)
            raise
        return tap


def open_loose() -> int:
    """A tap that is nowhere yet, in this network namespace. Raises StageError."""
    with _stage("tap"):
        return links.open_tap(_NOWHERE)


def open_spare(card: int) -> int:
    """A tap that is put away: to be called in QEMU's network namespace. Raises StageError."""
    with _stage("tap"):
        return links.open_tap(_spare(card))


def plug(tap: int, attachment: Attachment) -> None:
    """Give a tap of this network namespace its name, and put it on its bridge. Raises StageError (`network`)."""
    with _stage(attachment.link):
        name, (link, bridge, mtu) = links.tap_name(tap), (attachment.link, attachment.bridge, attachment.interface.mtu)
        try:
            links.plug(name, bridge, new=link, mtu=mtu)
        except FileExistsError:
            _clear(link)
            links.plug(name, bridge, new=link, mtu=mtu)


def fetch(tap: int, qemu: int, card: int, attachment: Attachment) -> None:
    """`plug` for the tap of a card that is put away; `qemu` is the process. The caller has one thread. Raises StageError; it is put
    away still then."""
    with _stage(attachment.link), _in_network_of(qemu) as here:
        links.move(links.tap_name(tap), here, _NOWHERE)
    try:
        plug(tap, attachment)
    except BaseException:
        put_away(tap, qemu, card)
        raise


def put_away(tap: int, qemu: int, card: int) -> None:
    """Take a tap from its bridge, out of this network namespace. Raises StageError; it is on the bridge still then."""
    name = links.tap_name(tap)
    with _stage(name):
        there = namespaces.open_namespace("network", qemu)
        try:
            links.move(name, there, _spare(card))
        finally:
            os.close(there)


def _spare(card: int) -> str:
    return f"spare{card}"


def _clear(link: str) -> None:
    """Take the name from a tap of the machine's former life, which the kernel has not taken down yet."""
    try:
        links.set_aside(link, _FORMER)
    except OSError as exc:
        if exc.errno != errno.ENODEV:
            raise


@contextmanager
def _in_network_of(process: int) -> Iterator[int]:
    """Be in the network namespace of a process; gives a descriptor of the one before."""
    here = namespaces.open_namespace("network")
    try:
        there = namespaces.open_namespace("network", process)
        try:
            namespaces.join(there, "network")
        finally:
            os.close(there)
        try:
            yield here
        finally:
            namespaces.join(here, "network")
    finally:
        os.close(here)


@contextmanager
def _stage(link: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StageError("network", exc.strerror or str(exc), errno=exc.errno or 0, path=link) from exc
