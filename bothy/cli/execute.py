"""exec and attach: into workloads that run."""

from __future__ import annotations

import os
import time

from bothy.cli import session, terminal, values
from bothy.cli.context import Context, path_part
from bothy.cli.errors import start_code, tell
from bothy.cli.flags import Command, Values
from bothy.errors import BothyError, Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXIT_CODE_WITHIN = 5.0  # seconds that the engine may take to learn of an end which we have seen


def execute(context: Context, flags: Values) -> int:
    """Run a program in a workload; its exit code, or 126 or 127 where it can not be run."""
    tty, stdin = flags.on("tty"), flags.on("interactive")
    keys = terminal.key_codes(flags.text("detach-keys"))
    is_detached = flags.on("detach")
    if not is_detached:
        terminal.check(stdin=stdin, tty=tty)
    body = exec_body(flags, dict(os.environ), terminal.size() if tty else (0, 0))
    workload = path_part(flags.args[0])
    session_id = context.post(f"/containers/{workload}/exec", body=body)["Id"]
    base = f"/exec/{session_id}"
    start: dict[str, Any] = {"Detach": is_detached, "Tty": tty}
    if "ConsoleSize" in body:
        start["ConsoleSize"] = body["ConsoleSize"]
    try:
        if is_detached:
            context.post(f"{base}/start", body=start)
            return 0
        taken = context.client.hijack("POST", f"{base}/start", body=start)
    except BothyError as exc:
        tell(exc.message, exc.hint)
        code = start_code(exc.errno, exc.stage)
        return 1 if code == 125 else code
    behaviour = session.Behaviour(context, base, tty=tty, proxy=False)
    try:
        if session.exchange(taken, behaviour, session.Manner(stdin=stdin, tty=tty, keys=keys, proxy=False)):
            return 0
    except session.LetGo as exc:
        return 128 + exc.number
    return _exit_code(context, base)


def _exit_code(context: Context, base: str) -> int:
    """The code of an exec whose streams have ended. The engine hears of the end from elsewhere, perhaps a moment later."""
    deadline = time.monotonic() + EXIT_CODE_WITHIN
    pause = 0.001
    while True:
        answer = context.get(f"{base}/json")
        if not answer.get("Running") and answer.get("ExitCode") is not None:
            return int(answer["ExitCode"])
        if time.monotonic() > deadline:  # it has closed its streams and runs on
            return 0
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def exec_body(flags: Values, ours: dict[str, str], console: tuple[int, int]) -> dict[str, Any]:
    """The body of `POST /containers/ID/exec`."""
    is_detached = flags.on("detach")
    body: dict[str, Any] = {
        "Cmd": flags.args[1:],
        "AttachStdin": flags.on("interactive") and not is_detached,
        "AttachStdout": not is_detached,
        "AttachStderr": not is_detached,
        "Tty": flags.on("tty"),
    }
    for flag, name in (("user", "User"), ("workdir", "WorkingDir"), ("detach-keys", "DetachKeys")):
        if flags.given(flag):
            body[name] = flags.text(flag)
    if flags.on("privileged"):
        body["Privileged"] = True
    if flags.given("env") or flags.given("env-file"):
        body["Env"] = values.environment(flags.many("env"), flags.many("env-file"), ours)
    if console != (0, 0):
        body["ConsoleSize"] = list(console)
    return body


def attach(context: Context, flags: Values) -> int:
    """Attach to a workload that runs; its exit code if it ends meanwhile."""
    keys = terminal.key_codes(flags.text("detach-keys"))
    name = path_part(flags.args[0])
    workload = context.get(f"/containers/{name}/json")
    state, config = workload["State"], workload["Config"]
    if not state.get("Running"):
        raise Conflict(f"{flags.args[0]} does not run", hint=f"bothy start -a {flags.args[0]} starts it and attaches to it")
    if state.get("Paused"):
        raise Conflict(f"{flags.args[0]} is paused", hint=f"bothy unpause {flags.args[0]} lets it go on")
    tty = bool(config.get("Tty"))
    stdin = bool(config.get("OpenStdin")) and not flags.on("no-stdin")
    terminal.check(stdin=stdin, tty=tty)
    base = f"/containers/{workload['Id']}"
    streams = {"stdout", "stderr"} | ({"stdin"} if stdin else set())
    attaching = context.client.begin(
        "POST", f"{base}/attach", session.attach_query(streams, flags.text("detach-keys")), upgrade=True
    )
    verdict = session.Verdict(context, base, "not-running")
    taken = attaching.hijacked()
    verdict.stand_by()
    proxy, closes = flags.on("sig-proxy", default=True), bool(config.get("StdinOnce"))
    manner = session.Manner(stdin=stdin, tty=tty, keys=keys, proxy=proxy, closes=closes)
    return session.converse(context, base, taken, verdict, manner)


DETACH_KEYS = ("detach-keys", "", "text", "keys", "Keys that detach (default ctrl-p,ctrl-q)")

COMMANDS = {
    "exec": Command(
        "exec",
        "Run a program in a workload that runs",
        execute,
        arguments="WORKLOAD PROGRAM [ARGUMENT…]",
        least=2,
        most=-1,
        interspersed=False,
        flags=(
            ("detach", "d", "bool", "", "Run it in the background"),
            DETACH_KEYS,
            ("env", "e", "list", "name[=value]", "Set an environment variable; without a value, pass ours on"),
            ("env-file", "", "list", "file", "Set environment variables from a file"),
            ("interactive", "i", "bool", "", "Keep stdin open"),
            ("privileged", "", "bool", "", "With every capability"),
            ("tty", "t", "bool", "", "Give it a terminal"),
            ("user", "u", "text", "user[:group]", "User to run as"),
            ("workdir", "w", "text", "folder", "Folder to run in"),
        ),
        dynamic="running",
        notes="The exit code is the program's; 126 if it can not be run, 127 if it is not there, 1 if the workload does not run.",
        examples=(
            ("bothy exec -it web bash", "A shell beside the server"),
            ("bothy exec web cat /etc/hosts", "One look at a file"),
        ),
    ),
    "attach": Command(
        "attach",
        "Be connected to the main program of a workload that runs",
        attach,
        arguments="WORKLOAD",
        least=1,
        most=1,
        flags=(
            DETACH_KEYS,
            ("no-stdin", "", "bool", "", "Output only"),
            ("sig-proxy", "", "bool", "", "Pass the signals we get on (default true)"),
        ),
        dynamic="running",
        examples=(("bothy attach shell", "ctrl-p ctrl-q leaves it running"),),
    ),
}
