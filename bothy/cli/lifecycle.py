"""start, stop, restart, kill, pause, unpause, rm, rename, wait and container prune: verbs that change the state of workloads."""

from __future__ import annotations

import sys

from bothy.cli.context import Context, each, filters_query, out, path_part
from bothy.cli.errors import Failure, UsageError, note, start_code, tell
from bothy.cli.flags import Command, Values
from bothy.errors import BothyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bothy.cli.flags import FlagSpec, Handler


def _post(context: Context, flags: Values, verb: str, **query: object) -> int:
    """`POST /containers/NAME/verb` for each argument, the names of those that worked printed."""
    return each(flags.args, lambda name: context.post(f"/containers/{path_part(name)}/{verb}", query))


def start(context: Context, flags: Values) -> int:
    """Start each; with --attach or --interactive a single one, and be connected to it."""
    if flags.on("attach") or flags.on("interactive"):
        return _start_attached(context, flags)
    return _post(context, flags, "start", detachKeys=flags.text("detach-keys") or None)


def _start_attached(context: Context, flags: Values) -> int:
    from bothy.cli import session, terminal

    if len(flags.args) != 1:
        raise UsageError("only one workload can be started and attached to at once", "start", "leave out -a and -i", code=1)
    workload = context.get(f"/containers/{path_part(flags.args[0])}/json")
    config = workload["Config"]
    tty, is_open = bool(config.get("Tty")), bool(config.get("OpenStdin")) and flags.on("interactive")
    terminal.check(stdin=is_open, tty=tty)
    streams = {"stdout", "stderr"} | ({"stdin"} if is_open else set())
    manner = session.Manner(
        stdin=is_open,
        tty=tty,
        keys=terminal.key_codes(flags.text("detach-keys")),
        proxy=flags.on("sig-proxy", default=True),
        closes=bool(config.get("StdinOnce")),
    )
    is_removed = bool(workload["HostConfig"].get("AutoRemove"))
    try:
        detach_keys = flags.text("detach-keys")
        return session.run_attached(
            context, workload["Id"], manner, streams=streams, detach_keys=detach_keys, is_removed=is_removed
        )
    except BothyError as exc:
        tell(exc.message, exc.hint)
        return start_code(exc.errno, exc.stage)


def stop(context: Context, flags: Values) -> int:
    """Ask each to end; the engine kills it after its time."""
    return _post(context, flags, "stop", t=_seconds(flags), signal=flags.text("signal") or None)


def restart(context: Context, flags: Values) -> int:
    """Stop each as `stop` does, and start it."""
    return _post(context, flags, "restart", t=_seconds(flags), signal=flags.text("signal") or None)


def _seconds(flags: Values) -> int | None:
    """How long a program may take to end; None for its own time."""
    for name in ("timeout", "time"):
        if flags.given(name):
            return flags.number(name)
    return None


def kill(context: Context, flags: Values) -> int:
    """Send each a signal."""
    return _post(context, flags, "kill", signal=flags.text("signal", "KILL"))


def pause(context: Context, flags: Values) -> int:
    """Freeze each."""
    return _post(context, flags, "pause")


def unpause(context: Context, flags: Values) -> int:
    """Let each go on."""
    return _post(context, flags, "unpause")


def rename(context: Context, flags: Values) -> int:
    """Give a workload another name."""
    name, new = flags.args
    context.post(f"/containers/{path_part(name)}/rename", {"name": new})
    return 0


def remove(context: Context, flags: Values) -> int:
    """Remove each, with what it wrote."""
    query = {"force": flags.on("force"), "v": flags.on("volumes"), "link": flags.on("link")}
    return each(flags.args, lambda name: context.delete(f"/containers/{path_part(name)}", query))


def wait(context: Context, flags: Values) -> int:
    """Wait for each in turn and print its exit code."""

    def show(name: str) -> None:
        answer = context.post(f"/containers/{path_part(name)}/wait")
        if message := (answer.get("Error") or {}).get("Message"):
            note(f"{name}: {message}")
        out(str(answer["StatusCode"]))
        sys.stdout.flush()

    return each(flags.args, show, quiet=True)


def prune(context: Context, flags: Values) -> int:
    """Remove what does not run, when that was confirmed."""
    confirm("All stopped workloads will be removed.", yes=flags.on("force"))
    answer = context.post("/containers/prune", {"filters": filters_query(flags.many("filter")) or None})
    report("Removed workloads", answer.get("ContainersDeleted"), answer.get("SpaceReclaimed"))
    return 0


def confirm(warning: str, *, yes: bool) -> None:
    """Ask before something that can not be undone. Raises Failure where the answer is no, or nobody is there to ask."""
    if yes:
        return
    from bothy.cli.terminal import is_terminal

    if not is_terminal(0):
        raise Failure(f"{warning[:1].lower()}{warning[1:-1]}; nobody is there to confirm it", hint="--force means yes")
    sys.stdout.write(f"{warning}\nGo on? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure("nothing was removed")


def report(title: str, names: list[str] | None, freed: int | None) -> None:
    """What a prune removed, and how much room that made."""
    from bothy.cli import human

    if names:
        out(f"{title}:")
        for name in names:
            out(name)
        out("")
    out(f"Total reclaimed space: {human.size(freed or 0)}")


TIME = ("time", "t", "int", "seconds", "Seconds to wait before it is killed (-1: for ever; default: its own, or 10)")
TIMEOUT = ("timeout", "", "int", "seconds", "The same as --time")
SIGNAL = ("signal", "s", "text", "signal", "Signal to send (default: its own, or TERM)")


def _each_workload(
    name: str,
    summary: str,
    handler: Handler,
    *examples: tuple[str, str],
    flags: Sequence[FlagSpec] = (),
    dynamic: str = "containers",
) -> Command:
    """A verb that is done to one workload after the other."""
    return Command(
        name,
        summary,
        handler,
        arguments="WORKLOAD…",
        least=1,
        most=-1,
        flags=flags,
        dynamic=dynamic,
        examples=examples,
    )


COMMANDS = {
    "start": _each_workload(
        "start",
        "Start workloads that were made or have ended",
        start,
        ("bothy start web db", "Start two"),
        ("bothy start -ai shell", "Start one and be in it"),
        flags=(
            ("attach", "a", "bool", "", "Attach to its output, pass signals on, exit with its code"),
            ("interactive", "i", "bool", "", "Attach to its input too"),
            ("detach-keys", "", "text", "keys", "Keys that detach (default ctrl-p,ctrl-q)"),
            ("sig-proxy", "", "bool", "", "Pass the signals we get on (default true)"),
        ),
    ),
    "stop": _each_workload(
        "stop",
        "Ask workloads to end, and kill those that do not in time",
        stop,
        ("bothy stop -t 3 web", "Three seconds to end by itself"),
        flags=(TIME, TIMEOUT, SIGNAL),
        dynamic="running",
    ),
    "restart": _each_workload(
        "restart",
        "Stop and start workloads",
        restart,
        ("bothy restart web", "Stop it as bothy stop does, then start it"),
        flags=(TIME, TIMEOUT, SIGNAL),
    ),
    "kill": _each_workload(
        "kill",
        "Send a signal to the main process of workloads",
        kill,
        ("bothy kill -s HUP web", "Have a server read its configuration again"),
        flags=(("signal", "s", "text", "signal", "Signal, by name or number (default KILL)"),),
        dynamic="running",
    ),
    "pause": _each_workload(
        "pause",
        "Freeze all processes of workloads",
        pause,
        ("bothy pause web", "No process of it runs until bothy unpause web"),
        dynamic="running",
    ),
    "unpause": _each_workload(
        "unpause",
        "Let frozen workloads go on",
        unpause,
        ("bothy unpause web", "It goes on where it was"),
        dynamic="running",
    ),
    "rename": Command(
        "rename",
        "Give a workload another name",
        rename,
        arguments="WORKLOAD NAME",
        least=2,
        most=2,
        dynamic="containers",
        examples=(("bothy rename web old-web", "Make room for a new one"),),
    ),
    "rm": _each_workload(
        "rm",
        "Remove workloads with everything they wrote",
        remove,
        ("bothy rm -f web", "Also if it runs"),
        ("bothy rm $(bothy ps -aq -f status=exited)", "All that have ended"),
        flags=(
            ("force", "f", "bool", "", "Kill those that run"),
            ("volumes", "v", "bool", "", "Remove their anonymous volumes too"),
            ("link", "l", "bool", "", "Accepted for Docker's sake; refused by the engine"),
        ),
    ),
    "wait": _each_workload(
        "wait",
        "Wait until workloads end and print their exit codes",
        wait,
        ("bothy wait job", "0 is printed if all went well"),
    ),
    "container prune": Command(
        "container prune",
        "Remove all workloads that do not run",
        prune,
        flags=(
            ("force", "f", "bool", "", "Do not ask"),
            ("filter", "", "list", "key=value", "Only those: until=24h, label=key[=value]"),
        ),
        examples=(("bothy container prune -f --filter until=24h", "Those made more than a day ago"),),
    ),
}
