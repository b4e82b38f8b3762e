"""`run` and `create`: flags into the body of `POST /containers/create`. A pure function of flags, files named by flags, and our
environment; what was not asked for is left out of the body.
"""

from __future__ import annotations

import os

from bothy.cli import values
from bothy.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bothy.cli.flags import Values

STREAMS = ("stdin", "stdout", "stderr")
NETWORK_HINT = "--network takes a name, or key=value,…: name, alias, ip, ip6, link-local-ip, mac-address, driver-opt, gw-priority"
TEXTS = (
    ("ipc", "IpcMode"), ("pid", "PidMode"), ("uts", "UTSMode"), ("userns", "UsernsMode"), ("cgroupns", "CgroupnsMode"),
    ("cgroup-parent", "CgroupParent"), ("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems"), ("isolation", "Isolation"),
    ("volume-driver", "VolumeDriver"), ("cidfile", "ContainerIDFile"), ("health-on-failure", "HealthOnFailure"),
)  # fmt: skip
NUMBERS = (
    ("cpu-shares", "CpuShares"), ("cpu-period", "CpuPeriod"), ("cpu-quota", "CpuQuota"), ("cpu-rt-period", "CpuRealtimePeriod"),
    ("cpu-rt-runtime", "CpuRealtimeRuntime"), ("memory-swappiness", "MemorySwappiness"), ("oom-score-adj", "OomScoreAdj"),
    ("pids-limit", "PidsLimit"), ("blkio-weight", "BlkioWeight"),
)  # fmt: skip
SWITCHES = (
    ("privileged", "Privileged"), ("read-only", "ReadonlyRootfs"), ("publish-all", "PublishAllPorts"), ("rm", "AutoRemove"),
    ("oom-kill-disable", "OomKillDisable"),
)  # fmt: skip
LISTS = (
    ("group-add", "GroupAdd"), ("dns", "Dns"), ("dns-search", "DnsSearch"), ("volumes-from", "VolumesFrom"), ("link", "Links"),
    ("device-cgroup-rule", "DeviceCgroupRules"),
)  # fmt: skip
SIZES = (
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("kernel-memory", "KernelMemory"),
    ("shm-size", "ShmSize"),
)
THROTTLES = (
    ("device-read-bps", "BlkioDeviceReadBps", True), ("device-write-bps", "BlkioDeviceWriteBps", True),
    ("device-read-iops", "BlkioDeviceReadIOps", False), ("device-write-iops", "BlkioDeviceWriteIOps", False),
)  # fmt: skip


def attached(flags: Values) -> set[str]:
    """Which of stdin, stdout and stderr `run` attaches to. Raises UsageError for a stream that is none."""
    chosen = {text.lower() for text in flags.many("attach")}
    for text in chosen:
        if text not in STREAMS:
            raise UsageError(f"invalid stream {text!r} for --attach", hint="streams are stdin, stdout and stderr")
    if flags.on("detach"):
        if chosen:
            raise UsageError("--attach and --detach exclude each other", code=1)
        return set()
    if not chosen:
        chosen = {"stdout", "stderr"}
    if flags.on("interactive"):
        chosen.add("stdin")
    return chosen


def create_body(flags: Values, ours: dict[str, str], console: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """The whole body: Config's fields, HostConfig, NetworkingConfig. `console` is our terminal's (height, width).

    Raises UsageError for whatever makes no sense before the engine is asked.
    """
    check(flags)
    streams = attached(flags)
    body: dict[str, Any] = {
        "Image": flags.args[0],
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "Tty": flags.on("tty"),
        "OpenStdin": flags.on("interactive"),
        "StdinOnce": flags.on("interactive") and "stdin" in streams,
    }
    for flag, name in (
        ("hostname", "Hostname"),
        ("domainname", "Domainname"),
        ("user", "User"),
        ("workdir", "WorkingDir"),
        ("stop-signal", "StopSignal"),
    ):
        if flags.given(flag):
            body[name] = flags.text(flag)
    if flags.args[1:]:
        body["Cmd"] = flags.args[1:]
    if flags.given("entrypoint"):
        body["Entrypoint"] = [flags.text("entrypoint")]
    if flags.given("stop-timeout"):
        body["StopTimeout"] = flags.number("stop-timeout")
    if flags.given("env") or flags.given("env-file"):
        body["Env"] = values.environment(flags.many("env"), flags.many("env-file"), ours)
    if flags.given("label") or flags.given("label-file"):
        body["Labels"] = values.labels(flags.many("label"), flags.many("label-file"))
    if (health := healthcheck(flags)) is not None:
        body["Healthcheck"] = health
    host = host_config(flags)
    if console != (0, 0) and flags.on("tty"):
        host["ConsoleSize"] = list(console)
    _mounts(flags, body, host)
    _ports(flags, body, host)
    body["HostConfig"] = host
    networking(flags, body, host)
    return body


def host_config(flags: Values) -> dict[str, Any]:
    """HostConfig but for mounts, ports and networks."""
    host: dict[str, Any] = {}
    for flag, name in TEXTS:
        if flags.given(flag):
            host[name] = flags.text(flag)
    for flag, name in NUMBERS:
        if flags.given(flag):
            host[name] = flags.number(flag)
    for flag, name in SWITCHES:
        if flags.on(flag):
            host[name] = True
    for flag, name in LISTS:
        if flags.given(flag):
            host[name] = flags.many(flag)
    for flag, name in SIZES:
        if flags.given(flag):
            host[name] = values.size(flags.text(flag), flag)
    for flag, name, is_size in THROTTLES:
        if flags.given(flag):
            host[name] = [values.throttle(text, flag, is_size=is_size) for text in flags.many(flag)]
    if flags.given("secret"):
        from bothy.cli import secrets

        host["Secrets"] = [secrets.mount(text) for text in flags.many("secret")]
    if flags.given("blkio-weight-device"):
        weights = [values.throttle(text, "blkio-weight-device", is_size=False) for text in flags.many("blkio-weight-device")]
        host["BlkioWeightDevice"] = [{"Path": weight["Path"], "Weight": weight["Rate"]} for weight in weights]
    for flag, name in (("cap-add", "CapAdd"), ("cap-drop", "CapDrop")):
        if flags.given(flag):
            host[name] = [capability(text) for text in flags.many(flag)]
    if flags.given("memory-swap"):
        host["MemorySwap"] = values.swap(flags.text("memory-swap"))
    if flags.given("cpus"):
        host["NanoCpus"] = values.nano_cpus(flags.text("cpus"))
    if flags.given("init"):
        host["Init"] = flags.on("init")
    if flags.given("ulimit"):
        host["Ulimits"] = list({str(u["Name"]): u for u in map(values.ulimit, flags.many("ulimit"))}.values())
    if flags.given("device"):
        host["Devices"] = [values.device(text) for text in flags.many("device")]
    if flags.given("restart"):
        host["RestartPolicy"] = values.restart_policy(flags.text("restart"))
    if flags.given("add-host"):
        host["ExtraHosts"] = [values.add_host(text) for text in flags.many("add-host")]
    if flags.given("dns-option") or flags.given("dns-opt"):
        host["DnsOptions"] = flags.many("dns-option") + flags.many("dns-opt")
    if flags.given("log-driver") or flags.given("log-opt"):
        host["LogConfig"] = {"Type": flags.text("log-driver"), "Config": values.pairs(flags.many("log-opt"), "log-opt")}
    for flag, name in (("sysctl", "Sysctls"), ("storage-opt", "StorageOpt"), ("annotation", "Annotations")):
        if flags.given(flag):
            host[name] = values.strict_pairs(flags.many(flag), flag)
    _runtime(flags, host)
    _security(flags, host)
    return host


def _runtime(flags: Values, host: dict[str, Any]) -> None:
    runtime = flags.text("runtime")
    if flags.on("vm"):
        if runtime not in ("", "vm"):
            raise UsageError(f"--vm and --runtime {runtime} exclude each other", "run", "--vm is the same as --runtime vm")
        runtime = "vm"
    if runtime:
        host["Runtime"] = runtime


def capability(text: str) -> str:
    """`net_admin` is CAP_NET_ADMIN; ALL stays."""
    name = text.upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _security(flags: Values, host: dict[str, Any]) -> None:
    """SecurityOpt: a seccomp profile is read here and sent whole; systempaths=unconfined is a matter of paths."""
    if not flags.given("security-opt"):
        return
    options = []
    for text in flags.many("security-opt"):
        key, separator, value = text.partition("=") if "=" in text else text.partition(":")
        if not separator and key != "no-new-privileges":
            raise UsageError(f"invalid --security-opt {text!r}", hint="for instance seccomp=unconfined or no-new-privileges")
        if key == "systempaths" and value == "unconfined":
            host["MaskedPaths"] = []
            host["ReadonlyPaths"] = []
            continue
        if key == "seccomp" and value not in ("unconfined", "builtin"):
            text = f"seccomp={_profile(value)}"
        options.append(text)
    host["SecurityOpt"] = options


def _profile(path: str) -> str:
    from bothy import quickjson

    try:
        with open(path, encoding="utf-8") as file:
            return quickjson.dumps(quickjson.loads(file.read()))
    except OSError as exc:
        raise UsageError(f"can not read the seccomp profile {path!r}: {exc.strerror}") from None
    except ValueError as exc:
        raise UsageError(f"the seccomp profile {path!r} is not JSON: {exc}") from None


def _mounts(flags: Values, body: dict[str, Any], host: dict[str, Any]) -> None:
    if not (flags.given("volume") or flags.given("mount") or flags.given("tmpfs")):
        return
    from bothy.cli import mounts

    binds, anonymous = mounts.volumes(flags.many("volume"))
    if binds:
        host["Binds"] = binds
    if anonymous:
        body["Volumes"] = {path: {} for path in anonymous}
    if flags.given("mount"):
        host["Mounts"] = [mounts.mount(text) for text in flags.many("mount")]
    if flags.given("tmpfs"):
        host["Tmpfs"] = mounts.tmpfs(flags.many("tmpfs"))


def _ports(flags: Values, body: dict[str, Any], host: dict[str, Any]) -> None:
    if not (flags.given("publish") or flags.given("expose")):
        return
    from bothy.cli import ports

    bindings = ports.publish(flags.many("publish"))
    if bindings:
        host["PortBindings"] = bindings
    body["ExposedPorts"] = {port: {} for port in [*bindings, *ports.expose(flags.many("expose"))]}


def networking(flags: Values, body: dict[str, Any], host: dict[str, Any]) -> None:
    """NetworkMode and NetworkingConfig. The first network takes --ip, --ip6, --mac-address, --network-alias and --link-local-ip."""
    texts = flags.many("network") + flags.many("net")
    endpoints = [_network(text) for text in texts] or [("default", {})]
    name, first = endpoints[0]
    host["NetworkMode"] = name
    addresses = first.setdefault("IPAMConfig", {})
    if flags.given("ip"):
        addresses["IPv4Address"] = flags.text("ip")
    if flags.given("ip6"):
        addresses["IPv6Address"] = flags.text("ip6")
    if flags.given("link-local-ip"):
        addresses["LinkLocalIPs"] = flags.many("link-local-ip")
    if not addresses:
        del first["IPAMConfig"]
    aliases = flags.many("network-alias") + flags.many("net-alias")
    if aliases:
        first["Aliases"] = first.get("Aliases", []) + aliases
    if flags.given("mac-address"):
        first["MacAddress"] = _mac(flags.text("mac-address"))
        body["MacAddress"] = first["MacAddress"]
    if any(endpoint for _, endpoint in endpoints) or len(endpoints) > 1:
        body["NetworkingConfig"] = {"EndpointsConfig": dict(endpoints)}


def _network(text: str) -> tuple[str, dict[str, Any]]:
    """`bridge`, or `name=net,alias=a,ip=1.2.3.4,mac-address=…,driver-opt=k=v`."""
    if "=" not in text:
        return text, {}
    name = ""
    endpoint: dict[str, Any] = {}
    for part in text.split(","):
        key, value = values.pair(part, "network")
        if key == "name":
            name = value
        elif key == "alias":
            endpoint.setdefault("Aliases", []).append(value)
        elif key in ("ip", "ip6"):
            endpoint.setdefault("IPAMConfig", {})["IPv4Address" if key == "ip" else "IPv6Address"] = value
        elif key == "link-local-ip":
            endpoint.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
        elif key == "mac-address":
            endpoint["MacAddress"] = _mac(value)
        elif key == "gw-priority":
            if not value.removeprefix("-").isdecimal():
                raise UsageError(f"invalid network {text!r}: gw-priority is a number", hint=NETWORK_HINT)
            endpoint["GwPriority"] = int(value)
        elif key == "driver-opt":
            endpoint.setdefault("DriverOpts", {}).update([values.pair(value, "network driver-opt")])
        else:
            raise UsageError(f"invalid network {text!r}: there is no key {key!r}", hint=NETWORK_HINT)
    if not name:
        raise UsageError(f"invalid network {text!r}: name is missing", hint=NETWORK_HINT)
    return name, endpoint


def _mac(text: str) -> str:
    digits = text.replace("-", ":").split(":")
    if len(digits) == 6 and all(len(d) == 2 and not d.strip("0123456789abcdefABCDEF") for d in digits):
        return text
    raise UsageError(f"invalid MAC address {text!r}", hint="for instance 02:42:ac:11:00:02")


def healthcheck(flags: Values) -> dict[str, Any] | None:
    """Healthcheck of the --health flags; None where none was given."""
    durations = (
        ("health-interval", "Interval"),
        ("health-timeout", "Timeout"),
        ("health-start-period", "StartPeriod"),
        ("health-start-interval", "StartInterval"),
    )
    health: dict[str, Any] = {}
    if flags.text("health-cmd"):
        health["Test"] = ["CMD-SHELL", flags.text("health-cmd")]
    for flag, name in durations:
        if flags.given(flag):
            health[name] = values.duration(flags.text(flag), flag)
    if flags.given("health-retries"):
        health["Retries"] = flags.number("health-retries")
    if flags.on("no-healthcheck"):
        if health:
            raise UsageError("--no-healthcheck and the other --health flags exclude each other")
        return {"Test": ["NONE"]}
    return health or None


def check(flags: Values) -> None:
    """Raise UsageError for flags that exclude each other and modes that are none."""
    if flags.on("rm") and flags.text("restart", "no") not in ("", "no"):
        raise UsageError("--restart and --rm exclude each other", "run", "what is removed at its end is not started again")
    if (cidfile := flags.text("cidfile")) and os.path.lexists(cidfile):
        raise UsageError(f"the id file {cidfile!r} exists already", hint=f"if its workload is gone: rm {cidfile}")
    if flags.given("memory-swappiness") and not 0 <= flags.number("memory-swappiness") <= 100:
        raise UsageError(f"invalid --memory-swappiness {flags.text('memory-swappiness')}: it is 0 to 100")
    if flags.text("pull", "missing") not in ("always", "missing", "never"):
        raise UsageError(f"invalid --pull {flags.text('pull')!r}", hint="it is always, missing or never")
    for flag, modes in (("pid", ("host",)), ("uts", ("host",)), ("userns", ("host",)), ("cgroupns", ("host", "private"))):
        mode = flags.text(flag)
        if mode and mode not in modes and not (flag == "pid" and mode.startswith("container:")):
            known = (*modes, "container:NAME") if flag == "pid" else modes
            raise UsageError(f"invalid --{flag} {mode!r}", hint=f"it is {' or '.join(known)}")
    if flags.given("gpus"):
        raise UsageError("--gpus is not supported", hint="--device gives access to a device of the host")
    if not flags.args[0]:
        raise UsageError("the name of the image is empty")
