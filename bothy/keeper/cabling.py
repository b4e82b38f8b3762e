"""The networks of a machine: taps are put on bridges and away here, its cards are shown and hidden by the agent in its guest.

    connect      a free card's tap onto the bridge ──▶ the agent shows the card and configures it
    disconnect   the tap away, so that nothing passes ──▶ the agent hides the card

Taps are moved by helpers: the kernel takes some 20 ms, or longer when others change links too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bothy.keeper import helpers
from bothy.keeper import workload as wall
from bothy.keeper.loop import Loop
from bothy.linux import channel
from bothy.linux.links import Attachment, Interface
from bothy.machines import cards, launch
from bothy.machines.launch import Clone

Ask = Callable[[dict[str, Any], wall.Done], None]


class Cabling:
    """Of one machine that runs. `ask` sends the agent a message, and calls with its answer or why there is none."""

    def __init__(self, loop: Loop, clone: Clone, ask: Ask) -> None:
        self._loop = loop
        self._cards = clone.cards
        self._ask = ask

    def lead(self, attachments: Sequence[Attachment]) -> None:
        """For a machine that was launched ahead: have its taps lead where it shall be. Raises StageError, OSError."""
        for card, attachment in enumerate(attachments):
            if self._cards.leads[card] != attachment:
                self._plug(card, attachment)
                self._plugged(card, attachment)

    def connect(self, attachment: Attachment, done: wall.Done) -> None:
        """See `bothy.keeper.workload.Workload.connect`. Raises StageError when all cards are in use."""
        card = self._cards.take(attachment)

        def plugged() -> None:
            self._plugged(card, attachment)
            self._ask({"op": "connect", "card": card, "interface": launch.card_order(attachment.interface)}, answered)

        def answered(outcome: dict[str, Any] | BaseException) -> None:
            if isinstance(outcome, BaseException):
                self._put_away(card, lambda: self._free(card, outcome, done), done)
            else:
                done({})

        self._in_helper(lambda: self._plug(card, attachment), plugged, lambda exc: self._free(card, exc, done))

    def disconnect(self, link: str, heir: Interface | None, done: wall.Done) -> None:
        """See `bothy.keeper.workload.Workload.disconnect`. If the guest fails, the machine is off the network all the same."""
        card = self._cards.find(link)
        if card is None:
            done({})
            return
        message = {"op": "disconnect", "card": card, "heir": launch.card_order(heir) if heir is not None else None}
        self._put_away(card, lambda: self._ask(message, lambda outcome: self._free(card, outcome, done)), done)

    def _plug(self, card: int, attachment: Attachment) -> None:
        if card in self._cards.away:
            cards.fetch(self._cards, card, attachment)
        else:
            cards.plug(self._cards.taps[card], attachment)

    def _plugged(self, card: int, attachment: Attachment) -> None:
        self._cards.leads[card] = attachment
        self._cards.away.discard(card)

    def _put_away(self, card: int, then: Callable[[], None], failed: wall.Done) -> None:
        def away() -> None:
            self._cards.away.add(card)
            then()

        self._in_helper(lambda: cards.put_away(self._cards, card), away, failed)

    def _free(self, card: int, outcome: dict[str, Any] | BaseException, done: wall.Done) -> None:
        self._cards.leads[card] = None
        done(outcome if isinstance(outcome, BaseException) else {})

    def _in_helper(self, work: Callable[[], None], then: Callable[[], None], failed: wall.Done) -> None:
        def run(sock: channel.Socket) -> None:
            work()
            channel.send(sock, {})

        helpers.await_message(self._loop, helpers.fork(run), lambda _message, _fds: then(), failed)
