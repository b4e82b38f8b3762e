"""Flags that this engine has not: refused, or left out with a warning. And rules and rates for devices. Without root."""

from __future__ import annotations

import pytest

from bothy.engine import refusals, security
from bothy.engine.model import EndpointConfig, HostConfig, ThrottleDevice
from bothy.engine.ranges import Ranges
from bothy.errors import BothyError, Invalid, NotFound, Unsupported
from bothy.oci.runtime import DeviceRule


@pytest.mark.parametrize(
    ("asked", "machine", "kind"),
    [
        (HostConfig(isolation="hyperv"), False, Invalid),
        (HostConfig(device_requests=[{}]), False, Unsupported),
        (HostConfig(cgroup_parent="/x"), True, Unsupported),
        (HostConfig(cpu_realtime_period=1), False, Unsupported),
        (HostConfig(storage_opt={"size": "1g"}), False, Unsupported),
        (HostConfig(storage_opt={"dm.x": "1"}), False, Invalid),
        (HostConfig(volume_driver="x"), False, NotFound),
        (HostConfig(blkio_device_read_bps=[ThrottleDevice("/dev/x", 1)]), True, Unsupported),
        (HostConfig(device_cgroup_rules=["c 1:3 r"]), True, Unsupported),
    ],
)
def test_refused(asked: HostConfig, machine: bool, kind: type[BothyError]) -> None:
    with pytest.raises(kind) as caught:
        refusals.check(asked, machine=machine)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_left_out_with_a_warning() -> None:
    assert len(refusals.check(HostConfig(blkio_weight=10, kernel_memory=1), machine=False)) == 2
    assert len(refusals.check(HostConfig(memory=2, memory_swap=-1, oom_kill_disable=True, memory_swappiness=0), machine=True)) == 3
    assert refusals.check(HostConfig(isolation="default", volume_driver="local", memory=2, memory_swap=4), machine=True) == []


def test_link_local_addresses() -> None:
    refusals.check_endpoints([None, EndpointConfig()])
    with pytest.raises(Unsupported):
        refusals.check_endpoints([EndpointConfig(ipam_config={"LinkLocalIPs": ["169.254.1.1"]})])


def test_rules_for_devices() -> None:
    assert security.device_rules(["c 42:* rm", "a *:* rwm"]) == [
        DeviceRule(allow=True, type="c", major=42, minor=None, access="rm"),
        DeviceRule(allow=True, type="a", major=None, minor=None, access="rwm"),
    ]
    for text in ("", "c 42 r", "x 1:1 r", "c 1:1 rx", "c 1:1 rwmr", "c 99999999999:1 r", "c 1:1 r\n"):
        with pytest.raises(Invalid):
            security.device_rules([text])


@pytest.mark.parametrize(("path", "rate", "kind"), [("/dev/null", 1, Invalid), ("/no/such", 1, NotFound), ("\0", 1, NotFound)])
def test_rates_are_for_block_devices(path: str, rate: int, kind: type[BothyError]) -> None:
    with pytest.raises(kind):
        security.throttles(HostConfig(blkio_device_write_iops=[ThrottleDevice(path, rate)]))


def test_a_range_is_given_back_by_the_last_that_has_it() -> None:
    ranges = Ranges("")
    base = ranges.take()
    ranges.adopt(base)
    ranges.give_back(base)
    assert ranges.take() != base
    ranges.give_back(base)
    assert ranges.take() == base
    ranges.give_back(12345)  # nobody's
    ranges.give_back(0)
