"""The driver options of a bridge network, in Docker's words: read, checked, with their defaults.

Source: moby daemon/libnetwork/drivers/bridge/labels.go, netlabel/labels.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from bothy.errors import Invalid, Unsupported

BRIDGE_NAME = "com.docker.network.bridge.name"
MTU = "com.docker.network.driver.mtu"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
GATEWAY_MODES = ("com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6")
IFNAME = "com.docker.network.endpoint.ifname"
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_IFNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,14}")


@dataclass(frozen=True)
class Options:
    """`mtu` 0: the uplink's. `icc`: its workloads may talk to each other. `masquerade`: to the world they have the host's address.
    `host_binding`: where ports are published that name no address, empty for the engine's choice."""

    bridge: str = ""
    mtu: int = 0
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""


def read(options: Mapping[str, str]) -> Options:
    """What a network's options say. Raises Invalid for a value that makes no sense, Unsupported; unknown ones are passed over."""
    for key in GATEWAY_MODES:
        if options.get(key, "nat") != "nat":
            raise Unsupported(f"{key}={options[key]} is not supported", hint="nat is the only gateway mode")
    return Options(
        bridge=interface_name(options.get(BRIDGE_NAME, ""), BRIDGE_NAME),
        mtu=_mtu(options.get(MTU, "")),
        icc=_truth(options, ICC),
        masquerade=_truth(options, MASQUERADE),
        host_binding=_address(options.get(HOST_BINDING, "")),
    )


def interface_name(name: str, what: str) -> str:
    """A name that the kernel takes for a link; empty stays empty. Raises Invalid."""
    if name and (not _IFNAME.fullmatch(name) or name in ("all", "default", "lo")):
        raise Invalid(f"{what}: {name!r} is not a name for an interface", hint="at most 15 letters, digits, - and _")
    return name


def _mtu(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdecimal() or not (int(text) == 0 or 68 <= int(text) <= 65535):
        raise Invalid(f"invalid value for {MTU}: {text}", hint="bytes, from 68 to 65535")
    return int(text)


def _truth(options: Mapping[str, str], key: str) -> bool:
    text = options.get(key, "true")
    if text not in (*_TRUE, *_FALSE):
        raise Invalid(f"invalid value for {key}: {text!r}", hint="true or false")
    return text in _TRUE


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text)) if text else ""
    except ValueError:
        raise Invalid(f"invalid value for {HOST_BINDING}: {text!r}", hint="an IPv4 address of this host") from None
