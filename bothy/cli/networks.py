"""network ls (network inspect is with the other inspects)."""

from __future__ import annotations

from bothy.cli.context import Context, filters_query
from bothy.cli.flags import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (("ID", "NETWORK ID", 0), ("Name", "NAME", 1), ("Driver", "DRIVER", 0), ("Subnet", "SUBNET", 0), ("Scope", "SCOPE", 0))


def listing(context: Context, flags: Values) -> int:
    """One row for each network."""
    from bothy.cli import tables

    found = context.get("/networks", {"filters": filters_query(flags.many("filter")) or None})
    rows = [row(network, is_full=flags.on("no-trunc")) for network in found]
    tables.show(rows, COLUMNS, form=flags.text("format"), ids="ID" if flags.on("quiet") else "")
    return 0


def row(network: dict[str, Any], *, is_full: bool) -> dict[str, Any]:
    """Docker's fields for `--format`, of an entry of `GET /networks`."""
    from bothy.cli import human

    labels = network.get("Labels") or {}
    pools = (network.get("IPAM") or {}).get("Config") or []
    return {
        "ID": network["Id"] if is_full else network["Id"][:12],
        "Name": network["Name"],
        "Driver": network.get("Driver") or "",
        "Scope": network.get("Scope") or "local",
        "Subnet": ",".join(str(pool.get("Subnet") or "") for pool in pools),
        "IPv6": str(bool(network.get("EnableIPv6"))).lower(),
        "Internal": str(bool(network.get("Internal"))).lower(),
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "CreatedAt": human.local_time(human.epoch(str(network.get("Created") or ""))),
    }


COMMANDS = {
    "network ls": Command(
        "network ls",
        "List networks",
        listing,
        flags=(
            ("filter", "f", "list", "key=value", "Only those: name, id, driver, label"),
            ("format", "", "text", "format", "table, json or a template"),
            ("no-trunc", "", "bool", "", "Do not shorten ids"),
            ("quiet", "q", "bool", "", "Ids only"),
        ),
        notes="Fields for --format: ID Name Driver Scope Subnet IPv6 Internal Labels CreatedAt.",
        examples=(("bothy network ls --format '{{.Name}} {{.Subnet}}'", "Which addresses are whose"),),
    ),
}
