"""Dockerfile instructions that change an image's configuration: `import --change`, `commit --change`.

CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR.
Source: docs.docker.com, Dockerfile reference.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from bothy.errors import Invalid
from bothy.oci.image import Healthcheck, ImageConfig

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s*")
_DURATIONS = {"interval": "interval", "timeout": "timeout", "start-period": "start_period", "start-interval": "start_interval"}
DEFAULT_SHELL = ["/bin/sh", "-c"]


def apply(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The configuration after the instructions, in order. Raises Invalid naming the instruction."""
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        rule = _RULES.get(word.upper())
        if rule is None:
            raise Invalid(f"{word or change!r} is not a valid change command", hint="one of " + ", ".join(_RULES))
        if not rest.strip():
            raise Invalid(f"{word.upper()} requires at least one argument")
        try:
            config = rule(config, rest.strip())
        except ValueError as exc:
            raise Invalid(f"{change!r}: {exc}") from None
    return config


def _argv(config: ImageConfig, text: str) -> list[str]:
    """The exec form (a JSON list of strings) or the shell form."""
    exec_form = _json_list(text)
    return exec_form if exec_form is not None else [*(config.shell or DEFAULT_SHELL), text]


def _json_list(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else None


def _pairs(text: str) -> list[tuple[str, str]]:
    """`a=b c="d e"`, or the old form `a b c`, which is one pair."""
    words = shlex.split(text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value:
            raise ValueError(f"{key} has no value")
        return [(key, value.strip())]
    pairs = [word.partition("=")[::2] for word in words]
    if any(not key for key, _ in pairs) or any("=" not in word for word in words):
        raise ValueError("expected key=value")
    return [(key, value) for key, value in pairs]


def _env(config: ImageConfig, text: str) -> ImageConfig:
    env = list(config.env)
    for key, value in _pairs(text):
        env = [entry for entry in env if entry.partition("=")[0] != key] + [f"{key}={value}"]
    return replace(config, env=env)


def _label(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, labels=config.labels | dict(_pairs(text)))


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    ports = dict(config.exposed_ports)
    for word in text.split():
        match = _PORT.fullmatch(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 0 < first <= last <= 65535:
            raise ValueError(f"invalid port {word}")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    return replace(config, exposed_ports=ports)


def _volume(config: ImageConfig, text: str) -> ImageConfig:
    paths = _json_list(text)
    return replace(config, volumes=config.volumes | {path: {} for path in (paths if paths is not None else text.split())})


def _workdir(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, working_dir=posixpath.normpath(posixpath.join("/", config.working_dir, text)))


def _healthcheck(config: ImageConfig, text: str) -> ImageConfig:
    if text.upper() == "NONE":
        return replace(config, healthcheck=Healthcheck(test=["NONE"]))
    values: dict[str, int] = {}
    while match := _FLAG.match(text):
        text = text[match.end() :]
        if match[1] == "retries":
            values["retries"] = int(match[2])
        elif match[1] in _DURATIONS:
            values[_DURATIONS[match[1]]] = _nanoseconds(match[2])
        else:
            raise ValueError(f"unknown flag --{match[1]}")
    word, _, command = text.partition(" ")
    if word.upper() != "CMD" or not command.strip():
        raise ValueError("expected CMD and a command, or NONE")
    test = _json_list(command.strip())
    return replace(config, healthcheck=Healthcheck(["CMD", *test] if test else ["CMD-SHELL", command.strip()], **values))


def _nanoseconds(text: str) -> int:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"invalid duration {text}")
    return sum(int(float(number) * _UNITS[unit]) for number, unit in parts)


def _shell(config: ImageConfig, text: str) -> ImageConfig:
    shell = _json_list(text)
    if not shell:
        raise ValueError("SHELL requires its arguments as a JSON list")
    return replace(config, shell=shell)


_RULES: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": lambda config, text: replace(config, cmd=_argv(config, text)),
    "ENTRYPOINT": lambda config, text: replace(config, entrypoint=_argv(config, text)),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": lambda config, text: replace(config, on_build=[*(config.on_build or []), text]),
    "SHELL": _shell,
    "STOPSIGNAL": lambda config, text: replace(config, stop_signal=text),
    "USER": lambda config, text: replace(config, user=text),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
