"""`bothy`: find the verb, read its flags, do it, and turn whatever happens into an exit code.

    argv ─▶ global flags ─▶ registry: verb ─▶ its module ─▶ flags.parse ─▶ handler(context, values) ─▶ exit code

Only this module exits. The verb's module is the only one that is imported (see the import budget's test).
"""

from __future__ import annotations

import os
import sys

from bothy.cli import flags as _flags
from bothy.cli import registry
from bothy.cli.context import Context, out
from bothy.cli.errors import ENGINE_FAILED, INTERRUPTED, Failure, Interrupted, UsageError, tell
from bothy.errors import BothyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Run one command line; the exit code. Raises nothing."""
    words = list(sys.argv[1:] if argv is None else argv)
    is_debug = "BOTHY_TRACEBACK" in os.environ
    try:
        context, words, is_debug = _globals(words, debug=is_debug)
        code = _dispatch(context, words)
        sys.stdout.flush()
    except UsageError as exc:
        tell(exc.message, exc.hint)
        return exc.code
    except Failure as exc:
        _flush()
        tell(exc.message, exc.hint)
        return exc.code
    except BothyError as exc:
        _flush()
        tell(exc.message, exc.hint)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except Interrupted as exc:
        return 128 + exc.number
    except Exception as exc:
        if is_debug:
            raise
        _flush()
        tell(f"{type(exc).__name__}: {exc}", "this is a mistake of bothy's own; bothy --debug … shows where")
        return ENGINE_FAILED
    return code


def launch() -> NoReturn:
    """`main` for a process that is nothing else: without the cost of an orderly end of the interpreter."""
    import gc

    gc.disable()
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (BrokenPipeError, AttributeError):
        pass
    os._exit(code)


def _flush() -> None:
    """What was printed comes before what is told."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _globals(words: list[str], *, debug: bool) -> tuple[Context, list[str], bool]:
    """Read the flags before the verb. Raises UsageError."""
    host = ""
    while words and words[0].startswith("-"):
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in ("-H", "--host"):
            if not equals and not words:
                raise UsageError(f"flag needs an argument: {name}")
            host = socket_path(value if equals else words.pop(0))
        elif word in ("-D", "--debug"):
            debug = True
        elif word in ("-v", "--version"):
            return Context(host), ["--version"], debug
        elif word in ("-h", "--help"):
            return Context(host), ["--help"], debug
        else:
            raise UsageError(f"unknown flag: {word}")
    return Context(host), words, debug


def socket_path(text: str) -> str:
    """The path of `unix:///path` or `/path`. Raises UsageError for any other kind of address."""
    path = text.removeprefix("unix://")
    if not path.startswith("/"):
        raise UsageError(f"invalid --host {text!r}", hint="it is the path of a socket: unix:///run/bothy/bothy.sock")
    return path


def _dispatch(context: Context, words: list[str]) -> int:
    if not words or words[0] == "--help":
        from bothy.cli.help import overview

        sys.stdout.write(overview())
        return 0
    if words == ["--version"]:
        from bothy import __version__

        out(f"bothy version {__version__}")
        return 0
    if words[0] == "help":
        words = [*words[1:], "--help"]
    verb, shown, count = registry.canonical(words)
    if not verb:
        return _group(words)
    command = registry.command(verb)
    values = _flags.parse(command, words[count:])
    if values.on("help"):
        from bothy.cli.help import page

        sys.stdout.write(page(command, shown))
        return 0
    context.shown = shown
    return command.handler(context, values)


def _group(words: list[str]) -> int:
    """The words name no verb: perhaps a group, perhaps a mistake."""
    from bothy.cli.help import closest, group_page, overview

    plain = [word for word in words if not word.startswith("-")]
    for count in (2, 1):
        group = " ".join(plain[:count])
        if len(plain) >= count and group in registry.GROUPS:
            rest = plain[count:]
            if not rest:
                sys.stdout.write(group_page(group))
                return 0
            prefix = group + " "
            known = [name[len(prefix) :] for name in (*registry.VERBS, *registry.ALIASES) if name.startswith(prefix)]
            meant = closest(rest[0], known)
            hint = f"did you mean bothy {group} {meant}?" if meant else f"bothy {group} --help lists its commands"
            raise UsageError(f"unknown command: bothy {group} {rest[0]}", hint=hint, code=1)
    if not plain:
        sys.stdout.write(overview())
        return 0
    meant = closest(plain[0], [name for name in (*registry.VERBS, *registry.ALIASES, *registry.GROUPS) if " " not in name])
    raise UsageError(f"unknown command: bothy {plain[0]}", hint=f"did you mean bothy {meant}?" if meant else "", code=1)
