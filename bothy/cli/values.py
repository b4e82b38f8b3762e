"""The small languages of Docker's flags: sizes, durations, decimal CPUs, key=value lines, limits, devices.

Pure functions of a text; each raises UsageError naming the flag and the value. Sources: docker/go-units (RAMInBytes, FromHumanSize,
ParseUlimit), Go's time.ParseDuration, docker/cli opts.
"""

from __future__ import annotations

from bothy.cli.errors import UsageError

UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
SECOND = 1_000_000_000
DURATIONS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}
ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
    "sigpending", "stack",
)  # fmt: skip


def size(text: str, flag: str) -> int:
    """Bytes of `512m`, `1.5g`, `64MiB`, `1024`: units are powers of 1024."""
    number = text.strip().lower()
    end = len(number)
    while end and not (number[end - 1].isdigit() or number[end - 1] == "."):
        end -= 1
    unit = number[end:].strip()
    for suffix in ("ib", "b"):
        if len(unit) > 1 and unit.endswith(suffix):
            unit = unit[: -len(suffix)]
            break
    try:
        if not number[:1].isdigit() and number[:1] != ".":
            raise ValueError(number)
        value = float(number[:end])
        return int(value * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise UsageError(f"invalid size {text!r} for --{flag}", hint="a size is a number and b, k, m, g or t: 512m, 1.5g") from None


def swap(text: str) -> int:
    """`--memory-swap`: a size, or -1 for no limit."""
    return -1 if text.strip() == "-1" else size(text, "memory-swap")


def duration(text: str, flag: str) -> int:
    """Nanoseconds of Go's `1h30m`, `1.5s`, `300ms`."""
    rest, total = text.strip(), 0
    if rest == "0":
        return 0
    while rest:
        digits = 0
        while digits < len(rest) and (rest[digits].isdigit() or rest[digits] == "."):
            digits += 1
        letters = digits
        while letters < len(rest) and not (rest[letters].isdigit() or rest[letters] == "."):
            letters += 1
        try:
            total += int(float(rest[:digits]) * DURATIONS[rest[digits:letters]])
        except (ValueError, KeyError):
            rest = ""
            break
        rest = rest[letters:]
    else:
        if text.strip():
            return total
    raise UsageError(f"invalid duration {text!r} for --{flag}", hint="a duration is numbers and units: 30s, 1m30s, 500ms")


def nano_cpus(text: str) -> int:
    """Billionths of a processor of `1.5`, exactly; more than nine decimals are too precise."""
    whole, _, part = text.strip().partition(".")
    if (whole or part) and (whole + part).isdigit() and len(part.rstrip("0")) <= 9:
        return int(whole or "0") * SECOND + int(part.rstrip("0")[:9].ljust(9, "0"))
    raise UsageError(f"invalid number of cpus {text!r}", hint="--cpus takes a number such as 2 or 1.5")


def pair(text: str, flag: str) -> tuple[str, str]:
    """`key=value`; the value may be empty, the key may not."""
    key, _, value = text.partition("=")
    if not key.strip():
        raise UsageError(f"invalid value {text!r} for --{flag}", hint=f"--{flag} takes key=value")
    return key, value


def pairs(texts: list[str], flag: str) -> dict[str, str]:
    """`key=value` texts as one mapping; the last of a key counts."""
    return dict(pair(text, flag) for text in texts)


def strict_pairs(texts: list[str], flag: str) -> dict[str, str]:
    """`pairs`, where a text without `=` is refused (--sysctl, --storage-opt)."""
    for text in texts:
        if "=" not in text:
            raise UsageError(f"invalid value {text!r} for --{flag}", hint=f"--{flag} takes key=value")
    return pairs(texts, flag)


def lines(path: str, flag: str) -> list[str]:
    """The lines of an --env-file or --label-file without comments and blanks. Raises UsageError where it can not be read."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise UsageError(f"can not read --{flag} {path!r}: {reason}") from None
    found = []
    for line in text.split("\n"):
        line = line.rstrip("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        key = line.partition("=")[0]
        if not key or any(c.isspace() for c in key):
            raise UsageError(
                f"--{flag} {path!r}: the name {key!r} is empty or contains a space",
                hint="a line is name=value, a name, or a # comment",
            )
        found.append(line)
    return found


def environment(texts: list[str], files: list[str], ours: dict[str, str]) -> list[str]:
    """Env of --env-file and --env: files first. `NAME` alone passes our own value on.

    If we have none, a name of --env stays as it is (the engine then takes the image's variable away), one of a file is left out.
    """
    result = []
    for path in files:
        result += [_passed_on(text, ours) for text in lines(path, "env-file") if "=" in text or text in ours]
    for text in texts:
        if text.startswith("=") or not text:
            raise UsageError(f"invalid environment variable {text!r}", hint="--env takes name=value or a name of ours to pass on")
        result.append(_passed_on(text, ours))
    return result


def _passed_on(text: str, ours: dict[str, str]) -> str:
    return text if "=" in text or text not in ours else f"{text}={ours[text]}"


def labels(texts: list[str], files: list[str]) -> dict[str, str]:
    """Labels of --label-file and --label: files first, the last of a key counts."""
    found: dict[str, str] = {}
    for path in files:
        found.update(pairs(lines(path, "label-file"), "label-file"))
    found.update(pairs(texts, "label"))
    return found


def ulimit(text: str) -> dict[str, object]:
    """`nofile=1024:2048` or `nofile=1024`; -1 is unlimited."""
    name, _, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    try:
        low = int(soft)
        high = int(hard) if colon else low
    except ValueError:
        raise UsageError(
            f"invalid ulimit {text!r}", hint="--ulimit takes name=soft[:hard], for instance nofile=1024:2048"
        ) from None
    if name not in ULIMITS:
        raise UsageError(f"invalid ulimit {text!r}: there is no limit {name!r}", hint=f"limits are {', '.join(ULIMITS)}")
    if high != -1 and (low > high or low == -1):
        raise UsageError(f"invalid ulimit {text!r}: the soft limit is above the hard limit", hint="--ulimit takes name=soft[:hard]")
    return {"Name": name, "Hard": high, "Soft": low}


def device(text: str) -> dict[str, str]:
    """`/dev/a[:/dev/b][:rwm]`."""
    parts = text.split(":")
    source, target, access = parts[0], "", "rwm"
    if len(parts) == 3:
        target, access = parts[1], parts[2]
    elif len(parts) == 2:
        target, access = ("", parts[1]) if _is_access(parts[1]) else (parts[1], access)
    if len(parts) > 3 or not source or not _is_access(access):
        raise UsageError(f"invalid device {text!r}", hint="--device takes /dev/on-host[:/dev/inside][:rwm]")
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": access}


def _is_access(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and all(c in "rwm" for c in text)


def restart_policy(text: str) -> dict[str, object]:
    """`no`, `always`, `unless-stopped`, `on-failure[:max]`."""
    name, colon, most = text.partition(":")
    if not colon:
        return {"Name": name, "MaximumRetryCount": 0}
    try:
        return {"Name": name, "MaximumRetryCount": int(most)}
    except ValueError:
        raise UsageError(
            f"invalid restart policy {text!r}: the number of retries is no number", hint="for instance --restart on-failure:3"
        ) from None


def add_host(text: str) -> str:
    """`host:ip` or `host=ip`; checked that there are both."""
    host, separator, address = text.partition("=") if "=" in text else text.partition(":")
    if not separator or not host or not address:
        raise UsageError(f"invalid --add-host {text!r}", hint="--add-host takes host:ip")
    return f"{host}:{address[1:-1] if address.startswith('[') and address.endswith(']') else address}"


def throttle(text: str, flag: str, *, is_size: bool) -> dict[str, object]:
    """`/dev/sda:1mb` or `/dev/sda:1000`."""
    path, colon, rate = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise UsageError(f"invalid value {text!r} for --{flag}", hint=f"--{flag} takes /dev/name:rate")
    if is_size:
        return {"Path": path, "Rate": size(rate, flag)}
    if not rate.isdigit():
        raise UsageError(f"invalid value {text!r} for --{flag}: the rate is no number", hint=f"--{flag} takes /dev/name:rate")
    return {"Path": path, "Rate": int(rate)}
