from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from bothy.machines import command, wire
from bothy.machines.command import Backing, Hardware

HARDWARE = Hardware("tcg", 2, 256, "/k/vmlinux", "/k/initramfs", 2_600_000)
CLONE = Backing(
    ram="/machine/ram", agent=5, monitor=6, taps=(7, 17, 27, 37), files=(8, 9), root=command.disk("/dev/fdset/1", readonly=True)
)


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def devices(arguments: list[str]) -> list[str]:
    return [arguments[at + 1].partition(",")[0] for at, word in enumerate(arguments) if word == "-device"]


def test_a_clone_has_the_devices_of_its_template_in_the_same_order() -> None:
    template = command.argv(HARDWARE, replace(CLONE, shared=True, console="/console"))
    assert devices(template) == devices(command.argv(HARDWARE, CLONE))
    for name in ("-machine", "-cpu", "-smp", "-m"):
        assert option(template, name) == option(command.argv(HARDWARE, CLONE), name)


def test_only_the_template_writes_to_the_memory_and_boots() -> None:
    template, clone = (command.argv(HARDWARE, replace(CLONE, shared=shared)) for shared in (True, False))
    assert "share=on" in option(template, "-object")
    assert "share=off" in option(clone, "-object")
    assert option(clone, "-incoming") == "defer"
    assert "-kernel" not in clone
    assert option(template, "-kernel") == "/k/vmlinux"
    assert "-incoming" not in template


def test_memory_is_reserved_unless_told_otherwise() -> None:
    assert "reserve" not in option(command.argv(HARDWARE, CLONE), "-object")
    assert option(command.argv(HARDWARE, replace(CLONE, reserve=False)), "-object").endswith(",share=off,reserve=off")


def test_an_emulated_guest_is_told_its_clock() -> None:
    assert "tsc_early_khz=2600000" in HARDWARE.cmdline
    assert "tsc_early_khz" not in replace(HARDWARE, tsc=0).cmdline
    kvm = replace(HARDWARE, accelerator="kvm")
    assert "tsc_early_khz" not in kvm.cmdline
    assert "mitigations" not in kvm.cmdline, "a real CPU speculates"
    assert (kvm.cpu, HARDWARE.cpu) == ("host", "max")


def test_qemu_is_sandboxed() -> None:
    assert "spawn=deny" in option(command.argv(HARDWARE, CLONE), "-sandbox")
    assert "-sandbox" not in command.argv(HARDWARE, replace(CLONE, sandbox=False))


def test_disks_are_passed_as_descriptors() -> None:
    arguments = command.argv(HARDWARE, CLONE)
    assert [arguments[at + 1] for at, word in enumerate(arguments) if word == "-add-fd"] == ["fd=8,set=1", "fd=9,set=2"]
    root = json.loads(option(arguments, "-blockdev"))
    assert root["node-name"] == "root"
    assert root["read-only"] is True
    assert root["file"]["filename"] == "/dev/fdset/1"


def test_commas_in_paths_are_doubled() -> None:
    arguments = command.argv(HARDWARE, replace(CLONE, ram="/a,b/ram", console="/c,d"))
    assert "mem-path=/a,,b/ram" in option(arguments, "-object")
    assert "file,id=console,path=/c,,d" in arguments


def test_each_card_has_its_tap_and_its_address() -> None:
    arguments = command.argv(HARDWARE, CLONE)
    taps = [arguments[at + 1] for at, word in enumerate(arguments) if word == "-netdev"]
    assert taps == ["tap,id=network0,fd=7", "tap,id=network1,fd=17", "tap,id=network2,fd=27", "tap,id=network3,fd=37"]
    cards = [word for word in arguments if word.startswith("virtio-net-device")]
    assert [card.split(",")[1:3] for card in cards] == [
        [f"netdev=network{n}", f"mac={wire.card_mac(n)}"] for n in range(wire.CARDS)
    ]
    with pytest.raises(ValueError, match="shorter"):
        command.argv(HARDWARE, replace(CLONE, taps=(7,)))


def test_the_description_can_be_pasted() -> None:
    arguments = command.argv(HARDWARE, CLONE)
    assert shlex.split(command.describe(arguments)) == arguments
