"""update: other limits, or another restart policy, for workloads that are there."""

from __future__ import annotations

from bothy.cli import values
from bothy.cli.context import Context, each, path_part
from bothy.cli.errors import UsageError, note
from bothy.cli.flags import Command, Values
from bothy.cli.options import CREATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NUMBERS = (
    ("blkio-weight", "BlkioWeight"), ("cpu-shares", "CpuShares"), ("cpu-period", "CpuPeriod"), ("cpu-quota", "CpuQuota"),
    ("cpu-rt-period", "CpuRealtimePeriod"), ("cpu-rt-runtime", "CpuRealtimeRuntime"), ("pids-limit", "PidsLimit"),
)  # fmt: skip
_TEXTS = (("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems"))
_SIZES = (("memory", "Memory"), ("memory-reservation", "MemoryReservation"))
_OTHERS = ("cpus", "memory-swap", "restart")
_FLAGS = {*_OTHERS, *(flag for flag, _ in (*_NUMBERS, *_TEXTS, *_SIZES))}


def update(context: Context, flags: Values) -> int:
    """Change each; the names of those that were changed are printed. Raises UsageError where nothing is asked for."""
    wanted = body(flags)
    if not wanted:
        raise UsageError("you must provide one or more flags when using this command", "update")

    def act(name: str) -> None:
        answer = context.post(f"/containers/{path_part(name)}/update", None, wanted)
        for warning in answer.get("Warnings") or ():
            note(f"warning: {warning}")

    return each(flags.args, act)


def body(flags: Values) -> dict[str, Any]:
    """What is asked for, as the API has it. Raises UsageError."""
    found: dict[str, Any] = {name: flags.number(flag) for flag, name in _NUMBERS if flags.given(flag)}
    found |= {name: flags.text(flag) for flag, name in _TEXTS if flags.given(flag)}
    found |= {name: values.size(flags.text(flag), flag) for flag, name in _SIZES if flags.given(flag)}
    if flags.given("cpus"):
        found["NanoCpus"] = values.nano_cpus(flags.text("cpus"))
    if flags.given("memory-swap"):
        found["MemorySwap"] = values.swap(flags.text("memory-swap"))
    if flags.given("restart"):
        found["RestartPolicy"] = values.restart_policy(flags.text("restart"))
    return found


COMMANDS = {
    "update": Command(
        "update",
        "Change the limits or the restart policy of workloads, also while they run",
        update,
        arguments="WORKLOAD…",
        flags=tuple(flag for flag in CREATE if flag[0] in _FLAGS),
        least=1,
        most=-1,
        dynamic="containers",
        notes="What is not named stays as it is. The new values also hold for later starts.",
        examples=(
            ("bothy update --memory 1g --memory-swap 2g db", "More memory, now"),
            ("bothy update --restart unless-stopped web db", "From now on they come back by themselves"),
        ),
    ),
}
