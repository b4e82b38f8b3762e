"""network create, ls, rm, prune, connect and disconnect (network inspect is with the other inspects, doctor in `exposure`)."""

from __future__ import annotations

from bothy.cli.context import Context, each, filters_query, out, path_part
from bothy.cli.errors import UsageError
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


def create(context: Context, flags: Values) -> int:
    """Make a network; prints its id."""
    from bothy.cli import values
    from bothy.cli.errors import note

    body: dict[str, Any] = {
        "Name": flags.args[0],
        "CheckDuplicate": True,
        "Driver": flags.text("driver", "bridge"),
        "IPAM": {
            "Driver": flags.text("ipam-driver", "default"),
            "Config": pools(flags),
            "Options": values.strict_pairs(flags.many("ipam-opt"), "ipam-opt"),
        },
        "Internal": flags.on("internal"),
        "Attachable": flags.on("attachable"),
        "Options": values.strict_pairs(flags.many("opt"), "opt"),
        "Labels": values.labels(flags.many("label"), []),
    }
    if flags.given("scope"):
        body["Scope"] = flags.text("scope")
    for name, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flags.given(name):
            body[key] = flags.on(name)
    answer = context.post("/networks/create", body=body)
    for warning in filter(None, str(answer.get("Warning") or "").splitlines()):
        note(warning)
    out(str(answer["Id"]))
    return 0


def pools(flags: Values) -> list[dict[str, Any]]:
    """IPAM.Config: each subnet with the gateway, the range and the auxiliary addresses that lie in it.

    Raises UsageError for one that lies in none. Whether they make sense otherwise is for the engine to say.
    """
    subnets = [text for value in flags.many("subnet") for text in value.split(",")]
    found: list[dict[str, Any]] = [{"Subnet": subnet} for subnet in subnets]
    for flag, key in (("gateway", "Gateway"), ("ip-range", "IPRange")):
        for text in (text for value in flags.many(flag) for text in value.split(",")):
            pool = _pool_of(text, found, flag)
            if key in pool:
                raise UsageError(f"--{flag} is given twice for subnet {pool['Subnet']}", "network create")
            pool[key] = text
    for text in flags.many("aux-address"):
        name, _, address = text.partition("=")
        if not address:
            raise UsageError(f"invalid auxiliary address {text!r}", "network create", "--aux-address takes NAME=ADDRESS")
        _pool_of(address, found, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = address
    return found


def _pool_of(text: str, found: list[dict[str, Any]], flag: str) -> dict[str, Any]:
    """The pool that an address (or range) lies in; with one pool of its version of IP, that one: the engine tells what is wrong."""
    same = [pool for pool in found if (":" in pool["Subnet"]) == (":" in text)]
    if len(same) > 1:
        from ipaddress import ip_address, ip_network

        try:
            address = ip_address(text.partition("/")[0])
            same = [pool for pool in same if address in ip_network(pool["Subnet"], strict=False)]
        except ValueError as exc:
            raise UsageError(f"invalid value for --{flag}: {exc}", "network create") from None
    if len(same) != 1:
        raise UsageError(f"no matching subnet for --{flag} {text}", "network create", "give the --subnet that it is in")
    return same[0]


def remove(context: Context, flags: Values) -> int:
    """Remove each network."""
    from bothy.errors import NotFound

    def act(name: str) -> None:
        try:
            context.delete(f"/networks/{path_part(name)}")
        except NotFound:
            if not flags.on("force"):
                raise

    return each(flags.args, act)


def prune(context: Context, flags: Values) -> int:
    """Remove the networks that no workload has, when that was confirmed."""
    from bothy.cli.lifecycle import confirm

    confirm("All networks that no workload has will be removed.", yes=flags.on("force"))
    answer = context.post("/networks/prune", {"filters": filters_query(flags.many("filter")) or None})
    names = answer.get("NetworksDeleted") or []
    if names:
        out("\n".join(["Removed networks:", *names]))
    return 0


def connect(context: Context, flags: Values) -> int:
    """Put a workload on a network, at once if it runs."""
    from bothy.cli import values

    network, workload = flags.args
    endpoint: dict[str, Any] = {}
    addresses = {"IPv4Address": flags.text("ip"), "IPv6Address": flags.text("ip6"), "LinkLocalIPs": flags.many("link-local-ip")}
    if any(addresses.values()):
        endpoint["IPAMConfig"] = {key: value for key, value in addresses.items() if value}
    if flags.given("alias"):
        endpoint["Aliases"] = flags.many("alias")
    if flags.given("link"):
        endpoint["Links"] = flags.many("link")
    if flags.given("driver-opt"):
        endpoint["DriverOpts"] = values.strict_pairs(flags.many("driver-opt"), "driver-opt")
    if flags.given("gw-priority"):
        endpoint["GwPriority"] = flags.number("gw-priority")
    context.post(f"/networks/{path_part(network)}/connect", body={"Container": workload, "EndpointConfig": endpoint})
    return 0


def disconnect(context: Context, flags: Values) -> int:
    """Take a workload off a network, at once if it runs."""
    network, workload = flags.args
    context.post(f"/networks/{path_part(network)}/disconnect", body={"Container": workload, "Force": flags.on("force")})
    return 0


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
    "network create": Command(
        "network create",
        "Make a network; prints its id",
        create,
        arguments="NETWORK",
        least=1,
        most=1,
        flags=(
            ("attachable", "", "bool", "", "Taken for Docker's sake: every network is"),
            ("aux-address", "", "list", "name=address", "An address that no workload gets"),
            ("driver", "d", "text", "name", "Driver: bridge"),
            ("gateway", "", "list", "address", "The host's address on it (default: the subnet's first)"),
            ("internal", "", "bool", "", "No way out, and none in but the network itself"),
            ("ip-range", "", "list", "range", "Part of the subnet that addresses are taken from"),
            ("ipam-driver", "", "text", "name", "Driver for addresses: default"),
            ("ipam-opt", "", "list", "key=value", "Option of that driver"),
            ("ipv4", "", "bool", "", "IPv4 (always)"),
            ("ipv6", "", "bool", "", "IPv6 too, with a subnet of the engine's own if none is given"),
            ("label", "", "list", "key=value", "Set a label"),
            ("opt", "o", "list", "key=value", "Driver option: com.docker.network.driver.mtu, com.docker.network.bridge.name, …"),
            ("scope", "", "text", "scope", "Scope: local"),
            ("subnet", "", "list", "subnet", "Its addresses, such as 10.89.0.0/24 (one for each version of IP)"),
        ),
        examples=(
            ("bothy network create --ipv6 shop", "Whoever runs with --network shop finds the others by name"),
            ("bothy network create --subnet 10.89.0.0/24 --internal vault", "Nothing of it gets out"),
        ),
    ),
    "network rm": Command(
        "network rm",
        "Remove networks",
        remove,
        arguments="NETWORK…",
        least=1,
        most=-1,
        flags=(("force", "f", "bool", "", "It is no failure if there is none"),),
        dynamic="networks",
        examples=(("bothy network rm shop", "Refused while a workload that runs is on it"),),
    ),
    "network prune": Command(
        "network prune",
        "Remove the networks that no workload has",
        prune,
        flags=(
            ("filter", "", "list", "key=value", "Only those: label=key[=value], until=time"),
            ("force", "f", "bool", "", "Do not ask"),
        ),
        examples=(("bothy network prune -f --filter until=24h", "Those that are older than a day"),),
    ),
    "network connect": Command(
        "network connect",
        "Put a workload on a network, at once if it runs",
        connect,
        arguments="NETWORK WORKLOAD",
        least=2,
        most=2,
        flags=(
            ("alias", "", "list", "name", "Additional name on the network"),
            ("driver-opt", "", "list", "key=value", "com.docker.network.endpoint.ifname=NAME: its interface inside"),
            ("gw-priority", "", "int", "number", "The network with the highest has the default route (default: 0)"),
            ("ip", "", "text", "address", "IPv4 address"),
            ("ip6", "", "text", "address", "IPv6 address"),
            ("link", "", "list", "container[:alias]", "Reach another container under a name"),
            ("link-local-ip", "", "list", "address", "Link-local address"),
        ),
        dynamic="networks",
        examples=(("bothy network connect --alias db shop postgres", "The others there find it as db"),),
    ),
    "network disconnect": Command(
        "network disconnect",
        "Take a workload off a network, at once if it runs",
        disconnect,
        arguments="NETWORK WORKLOAD",
        least=2,
        most=2,
        flags=(("force", "f", "bool", "", "Also where it does not let go of it"),),
        dynamic="networks",
        examples=(("bothy network disconnect shop postgres", "It is not found there any more"),),
    ),
}
