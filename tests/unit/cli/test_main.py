"""Words, exit codes and failures of the whole command line, without an engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bothy.cli.errors import start_code
from bothy.cli.main import main, socket_path
from bothy.errors import BothyError


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("argv", "code", "message", "hint"),
    [
        (["rnu"], 1, "unknown command: bothy rnu", "did you mean bothy run?"),
        (["image", "lss"], 1, "unknown command: bothy image lss", "did you mean bothy image ls?"),
        (["xyzzy"], 1, "unknown command: bothy xyzzy", "bothy --help lists the commands"),
        (["--foo"], 125, "unknown flag: --foo", "bothy --help lists the commands"),
        (["ps", "--foo"], 125, "unknown flag: --foo", "bothy ps --help lists what it takes"),
        (["run", "--foo", "x"], 125, "unknown flag: --foo", "bothy run --help lists what it takes"),
        (["run"], 1, "run takes at least one argument", "usage: bothy run [FLAGS] IMAGE [PROGRAM] [ARGUMENT…]"),
        (["ps", "x"], 1, "ps takes no arguments", "usage: bothy ps [FLAGS]"),
        (
            ["-H", "tcp://1.2.3.4", "ps"],
            125,
            "invalid --host 'tcp://1.2.3.4'",
            "it is the path of a socket: unix:///run/bothy/bothy.sock",
        ),
        (["save", "-o", "/dev/null", "x"], 1, "can not write '/dev/null': it is not a regular file", "bothy save … > /dev/null"),
        (["ps", "--filter", "x"], 125, "invalid filter 'x'", "--filter takes key=value, for instance status=exited"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], argv: list[str], code: int, message: str, hint: str) -> None:
    assert told(capsys, *argv) == (code, "", f"bothy: {message}\n  hint: {hint}\n")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["ps"], 1),
        (["stop", "a", "b"], 1),
        (["run", "x"], 125),
        (["run", "-d", "x"], 125),
        (["create", "x"], 1),
        (["exec", "a", "b"], 1),
    ],
)
def test_no_engine_is_one_failure(capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: list[str], code: int) -> None:
    path = f"{tmp_path}/none.sock"
    found, out, err = told(capsys, "-H", f"unix://{path}", *argv)
    assert (found, out) == (code, "")
    assert err.startswith(f"bothy: no engine listens at {path}\n  hint: ")
    assert err.count("\n") == 2


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    code, out, _ = told(capsys, *argv)
    assert code == 0
    assert out.startswith("usage: bothy")
    assert "bothy image bootstrap debian:bookworm" in out


@pytest.mark.parametrize("argv", [["run", "--help"], ["help", "run"], ["run", "-h"]])
def test_help_of_a_verb(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    if argv == ["run", "-h"]:  # -h is the host name there, as in Docker
        assert told(capsys, *argv)[0] == 125
    else:
        assert told(capsys, *argv)[1].startswith("usage: bothy run [FLAGS] IMAGE")


def test_help_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, "machine", "template")
    assert code == 0
    assert "  prune   Remove templates" in out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from bothy import __version__

    assert told(capsys, "--version") == (0, f"bothy version {__version__}\n", "")


@pytest.mark.parametrize(
    ("errno", "stage", "code"),
    [(2, "exec", 127), (13, "exec", 126), (8, "exec", 126), (20, "exec", 126), (2, "mounts", 125), (0, "", 125)],
)
def test_exit_codes_of_programs_that_do_not_start(errno: int, stage: str, code: int) -> None:
    assert start_code(errno, stage) == code


def test_a_mistake_of_our_own_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(words: list[str]) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("bothy.cli.registry.canonical", broken)
    code, _, err = told(capsys, "ps")
    assert (code, err.splitlines()[0]) == (125, "bothy: ZeroDivisionError: oops")
    with pytest.raises(ZeroDivisionError):
        main(["--debug", "ps"])


def test_failures_of_the_engine_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(words: list[str]) -> None:
        raise BothyError("it can not be", hint="do something else")

    monkeypatch.setattr("bothy.cli.registry.canonical", refuse)
    assert told(capsys, "ps") == (1, "", "bothy: it can not be\n  hint: do something else\n")


def test_sockets() -> None:
    assert socket_path("unix:///run/x.sock") == socket_path("/run/x.sock") == "/run/x.sock"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    root = str(Path(__file__).resolve().parents[3])
    program = (
        f"import sys; sys.path.append({root!r}); from bothy.cli.main import launch; sys.argv[1:] = ['run', '--help']; launch()"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as out:
        done = subprocess.run([sys.executable, "-IS", "-c", program], stdout=out, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (141, b"")
