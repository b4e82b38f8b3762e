from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import Any

import pytest

from bothy.guest import cards
from bothy.linux import netlink
from bothy.linux.links import Attachment, Interface, Route
from bothy.machines import jail, launch
from bothy.machines.model import Disk, MachinePlan, Share
from bothy.oci.runtime import Box, Linux, Mount, Pids, Process, Resources, Root, Spec

INTERFACE = Interface("eth0", "02:42:ac:11:00:02", ["172.17.0.2/16"], [Route("default", "172.17.0.1")])


def plan(**changes: Any) -> MachinePlan:
    mounts = [
        Mount("/dev", "tmpfs", "tmpfs", ["mode=755"]),
        Mount("/dev/shm", "tmpfs", "shm", ["size=67108864"]),
        Mount("/tmp", "tmpfs", "tmpfs", ["size=1m"]),
        Mount("/proc", "proc", "proc"),
    ]
    spec = Spec(Process(["true"], env=["A=b"]), Root("/"), "name", mounts, Linux(resources=Resources(pids=Pids(7))))
    made = MachinePlan(
        "abc", spec, "/t", 1, 1, Disk("/r", readonly=True), Disk("/s"), [Attachment(INTERFACE, "t")], files={"/etc/hosts": "h"}
    )
    return replace(made, **changes)


class Clone:
    fresh = True
    mounted = True
    nic = 2


def boot(of: MachinePlan) -> dict[str, Any]:
    return launch.boot_message(of, Clone(), stdin=True)  # type: ignore[arg-type]


def test_the_guest_is_told_what_it_has_not_from_its_template() -> None:
    message = boot(plan())
    assert [mount["destination"] for mount in message["mounts"]] == ["/tmp"]
    assert message["files"] == {"machine-id": "0" * 29 + "abc\n", "hosts": "h"}
    assert message["hostname"] == "name"
    assert message["pids"] == 7
    assert json.loads(message["process"])["args"] == ["true"]
    assert (message["fresh"], message["stdin"], message["terminal"], message["size"]) == (True, True, False, None)


def test_another_size_of_shm_is_told() -> None:
    spec = replace(plan().spec, mounts=[Mount("/dev/shm", "tmpfs", "shm", ["size=1048576"])])
    assert [mount["destination"] for mount in boot(plan(spec=spec))["mounts"]] == ["/dev/shm"]


def test_two_guests_get_different_randomness() -> None:
    one, other = boot(plan())["entropy"], boot(plan())["entropy"]
    assert one != other
    assert bytes.fromhex(one)[:8] == struct.pack("=ii", launch.SEED * 8, launch.SEED)
    assert len(bytes.fromhex(one)) == 8 + launch.SEED


def test_the_network_is_ready_to_be_sent() -> None:
    (part,) = boot(plan())["network"]
    data = bytes.fromhex(part)
    kinds, flags = [], []
    while data:
        length, kind, flag = struct.unpack_from("=IHH", data)
        kinds.append(kind)
        flags.append(bool(flag & netlink.NLM_F_ACK))
        data = data[(length + 3) & ~3 :]
    assert kinds == [netlink.RTM_NEWLINK, netlink.RTM_NEWADDR, netlink.RTM_NEWROUTE]
    assert flags == [False, False, True]
    assert boot(plan(attachments=[]))["network"] == []


def test_ipv6_comes_after_the_hardware_address() -> None:
    first, second = boot(plan(attachments=[Attachment(replace(INTERFACE, addresses=["fd00::2/64"]))]))["network"]
    assert [struct.unpack_from("=IH", bytes.fromhex(part))[1] for part in (first, second)] == [
        netlink.RTM_NEWLINK, netlink.RTM_NEWADDR,
    ]  # fmt: skip


def test_further_cards_are_told() -> None:
    second = replace(INTERFACE, name="eth1", routes=[], mtu=1400)
    both = [Attachment(INTERFACE, "t"), Attachment(second, "u")]
    told = boot(plan(attachments=both))
    assert told["network"]
    assert told["cards"] == [[1, launch.card_order(second)]]
    assert cards.interface_of(launch.card_order(INTERFACE)) == INTERFACE


def test_a_first_card_of_another_name_is_told_like_the_others() -> None:
    told = boot(plan(attachments=[Attachment(replace(INTERFACE, name="front"), "t")]))
    assert told["network"] == []
    assert [number for number, _ in told["cards"]] == [0]


def test_shares_do_not_tell_the_guest_where_they_are_on_the_host() -> None:
    shares = boot(plan(shares=[Share("/secret/place", "/data", readonly=True)]))["shares"]
    assert shares == [{"destination": "/data", "readonly": True}]


def test_an_order_carries_the_size_of_the_terminal() -> None:
    order = launch.order(Process(["sh"], terminal=True, console_size=Box(24, 80)), stdin=False)
    assert (order["terminal"], order["size"]) == (True, [24, 80])


@pytest.mark.parametrize("name", ["", "a", "0123456789abcdef", "ümläut"])
def test_every_machine_has_an_id_above_all_others(name: str) -> None:
    assert 2_000_000_000 < jail.owner(name) < 1 << 31
    assert jail.owner("a" * 64) != jail.owner("b" * 64)
