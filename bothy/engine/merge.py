"""What is asked for and what the image says, merged into one `Config`: the one that is recorded, shown and run.

Source of the rules: moby daemon/commit.go `merge` and daemon/container.go `verifyContainerSettings`. Pure functions.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterable

from bothy.engine.model import Config, Healthcheck
from bothy.errors import Invalid
from bothy.oci.image import ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_TIMEOUT = 10


def merged(config: Config, image: ImageConfig) -> Config:
    """The configuration with the image's filled in where nothing was asked. Raises Invalid when there is no command."""
    cmd, entrypoint = config.cmd, config.entrypoint
    if not entrypoint:
        cmd = cmd or image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == [""]:
        entrypoint = None
    if not (entrypoint or cmd):
        raise Invalid("no command specified", hint="the image has none either; name one after the image")
    return dataclasses.replace(
        config,
        cmd=cmd,
        entrypoint=entrypoint,
        user=config.user or image.user,
        env=merged_env(image.env, config.env),
        working_dir=config.working_dir or image.working_dir,
        exposed_ports={**image.exposed_ports, **config.exposed_ports},
        volumes={**image.volumes, **config.volumes},
        labels={**image.labels, **config.labels},
        stop_signal=config.stop_signal or image.stop_signal,
        stop_timeout=config.stop_timeout if config.stop_timeout is not None else image.stop_timeout,
        healthcheck=_healthcheck(config.healthcheck, image),
        shell=config.shell or image.shell,
    )


def _healthcheck(asked: Healthcheck | None, image: ImageConfig) -> Healthcheck | None:
    if image.healthcheck is None:
        return asked
    theirs = Healthcheck(**{f.name: getattr(image.healthcheck, f.name) for f in dataclasses.fields(Healthcheck)})
    if asked is None:
        return theirs
    filled = {f.name: getattr(asked, f.name) or getattr(theirs, f.name) for f in dataclasses.fields(Healthcheck)}
    return Healthcheck(**filled)


def merged_env(image: Iterable[str], asked: Iterable[str]) -> list[str]:
    """The image's variables, then those asked for; the same name keeps its place and gets the later value.

    `NAME` without `=` takes the variable out again, as Docker does.
    """
    found: dict[str, str | None] = {}
    for entry in image:
        found.setdefault(entry.partition("=")[0], entry)
    for entry in asked:
        name, equals, _ = entry.partition("=")
        if not name or "\0" in entry:
            raise Invalid(f"invalid environment variable: {entry!r}")
        found[name] = entry if equals else None
    return [entry for entry in found.values() if entry is not None]


def process_env(config: Config, hostname: str) -> list[str]:
    """The environment of the program: Docker's defaults first, then the configuration's. HOME is the process stage's to add."""
    found = {"PATH": f"PATH={DEFAULT_PATH}", "HOSTNAME": f"HOSTNAME={hostname}"}
    if config.tty:
        found["TERM"] = "TERM=xterm"
    for entry in config.env:
        found[entry.partition("=")[0]] = entry
    return list(found.values())


def arguments(config: Config) -> list[str]:
    """The program's argv: entrypoint, then cmd."""
    return [*(config.entrypoint or []), *(config.cmd or [])]


def signal_number(text: str, default: int = signal.SIGTERM) -> int:
    """The number of `KILL`, `SIGKILL`, `9`, `RTMIN+3`; the default for nothing. Raises Invalid."""
    if not text:
        return default
    if text.isdecimal():
        if 1 <= int(text) <= 64:
            return int(text)
        raise Invalid(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    if base in ("RTMIN", "RTMAX") and (not sign or offset.isdecimal()):
        number = int(signal.SIGRTMIN if base == "RTMIN" else signal.SIGRTMAX) + int(offset or 0) * (-1 if sign == "-" else 1)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    try:
        return int(signal.Signals["SIG" + name])
    except KeyError:
        raise Invalid(f"invalid signal: {text}", hint="use a name like SIGTERM or a number from 1 to 64") from None


def stop_order(config: Config, timeout: int | None, word: str) -> tuple[int, int]:
    """(signal, seconds; negative waits for ever) of a stop: the request's, else the configuration's, else SIGTERM and 10 s."""
    number = signal_number(word or config.stop_signal)
    if timeout is None:
        timeout = config.stop_timeout if config.stop_timeout is not None else STOP_TIMEOUT
    return number, timeout
