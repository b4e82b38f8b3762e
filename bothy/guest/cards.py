"""The guest's network cards: all are there from the beginning, and those that lead nowhere are hidden, by taking their driver away.

They are told apart by the hardware addresses that they have before anybody gives them others (`bothy.machines.wire.card_mac`), and
known from then on by the names of their virtio devices.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from bothy.linux import links
from bothy.linux.links import Interface, Route
from bothy.machines import wire

FIRST = "eth0"
_DEVICES = "/sys/bus/virtio/devices"
_DRIVER = "/sys/bus/virtio/drivers/virtio_net"
_IPV6 = "/proc/sys/net/ipv6/conf"


def prepare() -> tuple[str, ...]:
    """The device of every card, by number. The first one is `eth0` from here on and up, the others are hidden. Raises OSError."""
    found = {_read(f"/sys/class/net/{name}/address"): name for name in os.listdir("/sys/class/net")}
    names = [found[mac] for mac in map(wire.card_mac, range(wire.CARDS))]
    devices = tuple(os.path.basename(os.readlink(f"/sys/class/net/{name}/device")) for name in names)
    for device in devices[1:]:
        hide(device)
    if names[0] != FIRST:
        links.rename(names[0], FIRST)
    _write(f"{_IPV6}/default/disable_ipv6", "1")
    _write(f"{_IPV6}/{FIRST}/disable_ipv6", "1")
    links.set_up(FIRST)
    return devices


def hide(device: str) -> None:
    """Take a card out of sight; nothing if it is. Raises OSError."""
    try:
        _write(f"{_DRIVER}/unbind", device)
    except OSError as exc:
        if exc.errno != errno.ENODEV:
            raise


def plug(device: str, wanted: dict[str, Any]) -> None:
    """Show a card and configure it; its routes take the place of others to the same destinations. Raises OSError.

    `wanted`: name, mac, addresses, routes (pairs of destination and gateway), mtu. After a failure the card is hidden.
    """
    interface = interface_of(wanted)
    try:
        name = _name(device)
        if name != interface.name:
            links.set_down(name)
            links.rename(name, interface.name)
        if any(":" in address for address in interface.addresses):
            allow_ipv6(interface.name)
        links.configure(interface)
        links.settle(interface.name)
    except OSError:
        hide(device)
        raise


def interface_of(wanted: dict[str, Any]) -> Interface:
    """An interface as the keeper tells it, see `bothy.machines.launch.card_order`."""
    routes = [Route(destination, gateway) for destination, gateway in wanted["routes"]]
    return Interface(wanted["name"], wanted["mac"], wanted["addresses"], routes, wanted["mtu"])


def allow_ipv6(name: str) -> None:
    """Have IPv6 on a card: with the addresses that it is given, which are used at once, and none that a neighbour tells it."""
    for switch, value in (("accept_ra", "0"), ("accept_dad", "0"), ("disable_ipv6", "0")):
        _write(f"{_IPV6}/{name}/{switch}", value)


def _name(device: str) -> str:
    """The name of a card's interface, which is shown now if it was hidden."""
    folder = f"{_DEVICES}/{device}/net"
    if not os.path.isdir(folder):
        _write(f"{_DRIVER}/bind", device)
    return os.listdir(folder)[0]


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
