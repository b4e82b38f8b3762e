"""The tables of an engine in the kernel: put there, changed, compared with what they should be, taken away (see `firewall`)."""

from __future__ import annotations

from collections.abc import Callable

from bothy.errors import Broken
from bothy.log import logger
from bothy.networks import firewall
from bothy.networks.nftables import Nftables

_log = logger("networks")


class Ruleset:
    """The tables of one scope. `wanted` says what they should be now. Raises Broken (nft's words), Unavailable."""

    def __init__(self, nft: Nftables, scope: str, wanted: Callable[[], list[firewall.Table]]) -> None:
        self._nft = nft
        self._scope = scope
        self._wanted = wanted

    def rebuild(self) -> None:
        """Put the tables there, in the place of what there was, and remove those that are not needed; one transaction."""
        wanted = self._wanted()
        spare = set(self._families()) - {table.family for table in wanted}
        script = "".join(table.script() for table in wanted)
        self._nft.run(script + "".join(firewall.delete_table(family, self._scope) for family in sorted(spare)))

    def is_right(self) -> bool:
        """Whether the kernel has the tables as they should be, and no others of ours."""
        wanted = self._wanted()
        if set(self._families()) != {table.family for table in wanted}:
            return False
        try:
            return all(table.matches(self._nft.query(f"list table {table.family} {table.name}")) for table in wanted)
        except Broken:
            return False

    def change(self, script: str) -> None:
        """Run a script; if a table is not as we left it, build all anew from what is wanted, of which the change is part."""
        try:
            self._nft.run(script)
        except Broken:
            _log.warning("the tables %s are not as they were left; building them anew", self._scope)
            self.rebuild()

    def remove(self) -> None:
        """Remove all tables; none is no error."""
        self._nft.run("".join(firewall.delete_table(family, self._scope) for family in (firewall.IP, *self._families())))

    def _families(self) -> list[str]:
        """The families in which the kernel has a table of ours."""
        listed = [entry["table"] for entry in self._nft.query("list tables") if "table" in entry]
        return [t["family"] for t in listed if t["name"] == self._scope and t["family"] in firewall.FAMILIES]
