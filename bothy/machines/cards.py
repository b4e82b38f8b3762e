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
from bothy.linux import channel, links, namespaces, syscalls
from bothy.linux.links import Attachment

_NOWHERE = "bothy-none%d"
_FORMER = "bothy-old%d"


@dataclass
class Cards:
    """`taps` are descriptors, by number of card; `apart` is one of QEMU's network namespace. `leads`: where each card leads, None
    for one that is free. `away`: the cards whose taps are put away, in that namespace."""

    taps: list[int]
    apart: int
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
        channel.close_all([*self.taps, self.apart])


def make(attachments: Sequence[Attachment], count: int, *, ahead: bool) -> Cards:
    """The taps of `count` cards, those of the attachments on their bridges. `ahead`: the first card will lead somewhere soon.

    The caller has one thread: for a moment it is in the new network namespace. Raises StageError; nothing is left then.
    """
    if len(attachments) > count:
        raise StageError("network", f"a machine has {count} network cards, {len(attachments)} networks are asked for")
    leads = [*attachments, *[None] * (count - len(attachments))]
    taps: list[int] = []
    apart = -1
    try:
        taps += map(open_tap, attachments)
        with _stage("tap"):
            if ahead and not taps:
                taps.append(links.open_tap(_NOWHERE))
            here = namespaces.open_namespace("network")
            try:
                syscalls.unshare(syscalls.CLONE_NEWNET)
                try:
                    apart = namespaces.open_namespace("network")
                    away = set(range(len(taps), count))
                    taps += [links.open_tap(_spare(card)) for card in sorted(away)]
                finally:
                    namespaces.join(here, "network")
            finally:
                os.close(here)
    except BaseException:
        channel.close_all(taps if apart < 0 else [*taps, apart])
        raise
    return Cards(taps, apart, leads, away)


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


def plug(tap: int, attachment: Attachment) -> None:
    """Give a tap of this network namespace its name, and put it on its bridge. Raises StageError (`network`)."""
    with _stage(attachment.link):
        name, (link, bridge, mtu) = links.tap_name(tap), (attachment.link, attachment.bridge, attachment.interface.mtu)
        try:
            links.plug(name, bridge, new=link, mtu=mtu)
        except FileExistsError:
            _clear(link)
            links.plug(name, bridge, new=link, mtu=mtu)
        if attachment.isolated:
            links.set_isolated(link)


def fetch(cards: Cards, card: int, attachment: Attachment) -> None:
    """`plug` for the tap of a card that is put away. The caller has one thread. Raises StageError; it is put away still then."""
    with _stage(attachment.link), _inside(cards.apart) as here:
        links.move(links.tap_name(cards.taps[card]), here, _NOWHERE)
    try:
        plug(cards.taps[card], attachment)
    except BaseException:
        put_away(cards, card)
        raise


def put_away(cards: Cards, card: int) -> None:
    """Take a card's tap from its bridge, out of this network namespace. Raises StageError; it is on the bridge still then."""
    name = links.tap_name(cards.taps[card])
    with _stage(name):
        links.move(name, cards.apart, _spare(card))


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
def _inside(netns: int) -> Iterator[int]:
    """Be in a network namespace; gives a descriptor of the one before."""
    here = namespaces.open_namespace("network")
    try:
        namespaces.join(netns, "network")
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
