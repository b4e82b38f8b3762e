"""`run` and `create`: the main job.

bothy                                                  bothyd
  │ POST /containers/create ─────────────────────────────▶│
  │ [--vm] POST /bothy/containers/ID/prepare ────────────▶│  template and disk; a line on stderr where it takes long
  │ POST /containers/ID/attach, and at the same time      │
  │ POST /containers/ID/wait ────────────────────────────▶│  both are answered before the start, so that nothing is missed
  │ POST /containers/ID/start ───────────────────────────▶│
  │◀──────────── stdout, stderr, end ─────────────────────│  (from the keeper itself)
  │◀──────────── exit code ───────────────────────────────│
"""

from __future__ import annotations

import os

from bothy.cli.body import attached, create_body
from bothy.cli.context import Context, out
from bothy.cli.errors import ENGINE_FAILED, Failure, note, start_code, tell
from bothy.cli.flags import Command, Values
from bothy.cli.options import CREATE, RUN
from bothy.errors import BothyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bothy.api.client import Pending


def run(context: Context, flags: Values) -> int:
    """Create, attach, start, wait. The exit code is the program's, or 125, 126, 127 as Docker's."""
    from bothy.cli import terminal

    streams = attached(flags)
    tty = flags.on("tty")
    keys = terminal.key_codes(flags.text("detach-keys"))
    terminal.check(stdin="stdin" in streams, tty=tty)
    console = terminal.size() if tty else (0, 0)
    try:
        pending = begin_create(context, flags, console)
        if flags.on("detach"):
            return _run_detached(context, flags, pending)
        from bothy.cli import session  # while the engine is busy making it

        manner = session.Manner(stdin="stdin" in streams, tty=tty, keys=keys, proxy=flags.on("sig-proxy", default=True))
        workload = created(pending.response().json(), flags)
        prepare(context, flags, workload)
        detach_keys = flags.text("detach-keys")
        return session.run_attached(context, workload, manner, streams=streams, detach_keys=detach_keys, is_removed=flags.on("rm"))
    except BothyError as exc:
        tell(exc.message, exc.hint)
        return start_code(exc.errno, exc.stage)
    except Failure as exc:
        raise Failure(exc.message, exc.hint, code=ENGINE_FAILED) from None


def create(context: Context, flags: Values) -> int:
    """Create only; prints the id."""
    from bothy.cli import terminal

    console = terminal.size() if flags.on("tty") else (0, 0)
    out(created(begin_create(context, flags, console).response().json(), flags))
    return 0


def begin_create(context: Context, flags: Values, console: tuple[int, int]) -> Pending:
    """Ask for the workload. Raises UsageError for flags that make no sense, before anything is asked."""
    body = create_body(flags, dict(os.environ), console)
    if flags.text("pull") == "always":
        pull(context, body["Image"], flags.text("platform"))
    query = {"name": flags.text("name") or None, "platform": flags.text("platform") or None}
    return context.client.begin("POST", "/containers/create", query, body)


def created(answer: dict[str, Any], flags: Values) -> str:
    """The id of the answer to create; warnings are told, the id file is written."""
    for warning in answer.get("Warnings") or ():
        note(f"warning: {warning}")
    workload = str(answer["Id"])
    if cidfile := flags.text("cidfile"):
        try:
            with open(cidfile, "x", encoding="ascii") as file:
                file.write(workload)
        except OSError as exc:
            raise Failure(
                f"can not write the id file {cidfile!r}: {exc.strerror}", hint=f"the workload was made: {workload}"
            ) from None
    return workload


def prepare(context: Context, flags: Values, workload: str) -> None:
    """For a machine: what it needs and is not there yet is made now, told on stderr where that takes over a second.

    Raises what the engine says. With --rm, a workload that will not be started because of that, or of a signal, is removed.
    """
    if not flags.on("vm") and flags.text("runtime") != "vm":
        return
    from bothy.cli import signals
    from bothy.cli.progress import follow

    try:
        with signals.Raising(signals.TERM, signals.HUP):
            follow(context.client.request("POST", f"/bothy/containers/{workload}/prepare").lines())
    except BaseException:
        if flags.on("rm"):
            _forget(context, workload)
        raise


def _forget(context: Context, workload: str) -> None:
    """Remove a workload that was not started; on a new connection, for an answer may be under way on the others."""
    try:
        Context(context.host).delete(f"/containers/{workload}", {"force": True, "v": True})
    except BothyError:
        pass  # it is gone already, or the engine is: what went wrong first is told


def pull(context: Context, image: str, platform: str) -> None:
    """`--pull always`. Raises what the engine says."""
    from bothy.cli.progress import follow

    query = {"fromImage": image, "platform": platform or None}
    follow(context.client.request("POST", "/images/create", query).lines())


def _run_detached(context: Context, flags: Values, pending: Pending) -> int:
    """Start, print the id, and leave it."""
    workload = created(pending.response().json(), flags)
    prepare(context, flags, workload)
    context.post(f"/containers/{workload}/start", {"detachKeys": flags.text("detach-keys") or None})
    out(workload)
    return 0


RUN_EXAMPLES = (
    ("bothy run -it debian:bookworm bash", "A shell in a new container"),
    ("bothy run --rm --vm debian:bookworm uname -r", "The same image as a virtual machine, removed when it ends"),
    ("bothy run -d --name web -p 8080:80 -v /srv/www:/www:ro nginx", "A server in the background, reachable on port 8080"),
    ("bothy run --rm -i busybox wc -c < file", "A step of a pipe"),
    ("bothy run --vm --cpus 4 --memory 2g -it debian:bookworm bash", "A machine of four CPUs and two gigabytes"),
    ("bothy run --rm --network none --read-only --cap-drop ALL --memory 64m --pids-limit 10 busybox true", "As little as possible"),
)
NOTES = (
    "Flags of bothy's come before the image, everything behind the image is the program and its arguments. "
    "With --vm (the same as --runtime vm) the program runs on a kernel of its own with its own virtual hardware; every other flag "
    "means the same on both sides of the wall. The first --vm run makes a template, which takes some seconds."
    "\n\n"
    "The exit code is the program's; 125 if bothy failed, 126 if the program can not be run, 127 if it is not there, 128+n if "
    "signal n killed it. ctrl-p ctrl-q detaches from a terminal and leaves the program running. "
    "A third Ctrl-C lets go of a program that ignores it."
)

COMMANDS = {
    "run": Command(
        "run",
        "Run a program from an image, as a container or (--vm) as a virtual machine",
        run,
        arguments="IMAGE [PROGRAM] [ARGUMENT…]",
        flags=RUN,
        least=1,
        most=-1,
        interspersed=False,
        dynamic="images",
        notes=NOTES,
        examples=RUN_EXAMPLES,
    ),
    "create": Command(
        "create",
        "Make a workload without starting it; prints its id",
        create,
        arguments="IMAGE [PROGRAM] [ARGUMENT…]",
        flags=CREATE,
        least=1,
        most=-1,
        interspersed=False,
        dynamic="images",
        notes="Takes the flags of run; bothy start starts it.",
        examples=(
            ("bothy create --name job -v data:/data busybox sh /data/run.sh", "Made now, started later: bothy start -a job"),
        ),
    ),
}
