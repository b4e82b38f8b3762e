"""Names of kernel parameters. Source: sysctl(8)."""

from __future__ import annotations

_SWAPPED = str.maketrans("./", "/.")


def path(name: str) -> str:
    """The path below /proc/sys of `net.ipv4.ip_forward` or `net/ipv4/ip_forward`; which of the two comes first separates, the
    other is a part of a name (`net.ipv4.conf.eth0/1.forwarding`). Raises ValueError for what is no name, or leads elsewhere."""
    first = next((letter for letter in name if letter in "./"), ".")
    found = name if first == "/" else name.translate(_SWAPPED)
    if any(part in ("", ".", "..") for part in found.split("/")) or "\0" in found:
        raise ValueError(f"{name!r} is no kernel parameter")
    return found
