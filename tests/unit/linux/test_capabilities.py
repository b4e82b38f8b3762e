"""Capability names and bit sets."""

from __future__ import annotations

import pytest

from bothy.linux import capabilities


def test_masks_and_names_are_inverse() -> None:
    names = ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]
    assert capabilities.names(capabilities.mask(names)) == names
    assert capabilities.mask(["CAP_SYS_ADMIN"]) == 1 << 21
    assert capabilities.mask(["CAP_CHECKPOINT_RESTORE"]) == 1 << 40


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        capabilities.mask(["CAP_NOTHING"])


def test_bits_without_a_name_are_left_out() -> None:
    assert capabilities.names(1 << 60) == []


def test_our_own_sets_are_read() -> None:
    with open("/proc/self/status") as status:
        fields = dict(line.split(":\t") for line in status.read().splitlines() if line.startswith("Cap"))
    assert capabilities.bounding() == int(fields["CapBnd"], 16)
    assert capabilities.effective() == int(fields["CapEff"], 16)
