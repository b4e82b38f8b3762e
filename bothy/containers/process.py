"""The last stage of every program, in a container or in a machine: from a privileged process of ours to the user's program.

    rlimits → working folder → seccomp (unless no_new_privs) → capabilities and ids → no_new_privs, seccomp → exec

`become` does all but exec, `execute` the rest. Both are called in a child that ends when they fail; failures are StageErrors, what
is not done quite as asked is a warning.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat

from bothy.containers.users import Identity
from bothy.errors import StageError
from bothy.linux import capabilities, syscalls
from bothy.oci.runtime import Capabilities, Process, Rlimit

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def reset_signals() -> None:
    """Dispositions and mask as a fresh program expects them. Handlers end with exec by themselves, what is ignored does not."""
    signal.set_wakeup_fd(-1)
    with open("/proc/self/status", "rb", buffering=0) as status:
        ignored = int(status.read().partition(b"SigIgn:\t")[2].partition(b"\n")[0] or b"0", 16)
    for number in range(1, signal.NSIG):
        if ignored >> (number - 1) & 1:
            syscalls.default_signal(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def set_rlimits(rlimits: list[Rlimit]) -> list[str]:
    """Set the limits; those above what we may are clamped, with a warning. Raises StageError for an unknown name."""
    warnings = []
    for rlimit in rlimits:
        number = getattr(resource, rlimit.type, None) if rlimit.type.startswith("RLIMIT_") else None
        if number is None:
            raise StageError("rlimit", f"unknown limit {rlimit.type}", errno=errno.EINVAL, path=rlimit.type)
        soft, hard = _limit(rlimit.soft), _limit(rlimit.hard)
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError) as exc:
            most = _clamp(number, soft, hard)
            if most is None:
                raise StageError("rlimit", f"{rlimit.type}={rlimit.soft}:{rlimit.hard}: {exc}", errno=errno.EINVAL) from exc
            told = "unlimited" if most == resource.RLIM_INFINITY else most
            warnings.append(f"ulimit {rlimit.type[7:].lower()} is clamped to {told}, bothy may not raise it on this host")
    return warnings


def _clamp(number: int, soft: int, hard: int) -> int | None:
    """Set as much of a limit as may be set, and return what it was clamped to: what the kernel has at most (proc(5), fs/nr_open)
    for who may raise limits, for others their own hard limit. None: not even that."""
    bounds = [resource.getrlimit(number)[1]]
    if number == resource.RLIMIT_NOFILE:
        try:
            with open("/proc/sys/fs/nr_open", "rb", buffering=0) as file:
                bounds.insert(0, int(file.read()))
        except (OSError, ValueError):
            pass
    for most in bounds:
        try:
            resource.setrlimit(number, (_least(soft, most), _least(hard, most)))
        except (OSError, ValueError):
            continue
        return most
    return None


def _limit(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 1 << 63 else value


def _least(one: int, other: int) -> int:
    return other if one == resource.RLIM_INFINITY else one if other == resource.RLIM_INFINITY else min(one, other)


def set_oom_score(score: int | None) -> list[str]:
    """Write oom_score_adj; a lowering that we may not do is a warning."""
    if score is None:
        return []
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(score).encode())
        finally:
            os.close(fd)
    except OSError as exc:
        return [f"oom_score_adj {score} is not set: {exc.strerror}"]
    return []


def become(process: Process, identity: Identity, *, seccomp: bytes = b"") -> None:
    """Turn the calling process, root of its user namespace and in its root, into what the program will be.

    The working folder is made if it is missing. Raises StageError; the process must then end.
    """
    try:
        stage = "cwd"
        entered = _enter_cwd(process.cwd or "/")
        stage = "seccomp"
        if seccomp and not process.no_new_privileges:
            syscalls.seccomp_filter(seccomp)
        stage = "capabilities"
        _change_credentials(process.capabilities, identity)
        stage = "cwd"
        if not entered:
            os.chdir(process.cwd)
        os.getcwd()
        stage = "seccomp"
        if process.no_new_privileges:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            if seccomp:
                syscalls.seccomp_filter(seccomp)
    except OSError as exc:
        path = process.cwd if stage == "cwd" else ""
        raise StageError(stage, exc.strerror or str(exc), errno=exc.errno or 0, path=path) from exc


def _enter_cwd(cwd: str) -> bool:
    """Go to the working folder, making it where it is missing. False: only the user may enter it, not (container) root."""
    try:
        os.chdir(cwd)
    except FileNotFoundError:
        os.makedirs(cwd, 0o755, exist_ok=True)
        os.chdir(cwd)
    except PermissionError:
        return False
    return True


def _change_credentials(sets: Capabilities | None, identity: Identity) -> None:
    """Groups, ids and capabilities, in the order that keeps the right to do the next one. Without `sets` we keep all we have."""
    if sets is None:
        permitted = effective = capabilities.effective()
        inheritable = 0
    else:
        permitted, effective, inheritable = map(capabilities.mask, (sets.permitted, sets.effective, sets.inheritable))
        capabilities.limit_bounding(capabilities.mask(sets.bounding))
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # other ids reset it, to what fs.suid_dumpable says
    capabilities.clear_ambient()
    capabilities.capset(effective & permitted, permitted, inheritable)


def environment(process: Process, identity: Identity) -> dict[bytes, bytes]:
    """The program's environment: the plan's, the last of a name counts, with HOME from the user's entry if it is unset or empty."""
    found = {}
    for entry in process.env:
        name, equals, value = entry.partition("=")
        if equals:
            found[os.fsencode(name)] = os.fsencode(value)
    if not found.get(b"HOME"):
        found[b"HOME"] = os.fsencode(identity.home)
    return found


def execute(process: Process, identity: Identity) -> None:
    """exec the program, looked for along its own PATH. Only returns by StageError (stage `exec`): ENOENT, EACCES, ENOEXEC, …"""
    env = environment(process, identity)
    name = process.args[0] if process.args else ""
    if not name:
        raise StageError("exec", "no command specified", errno=errno.EINVAL)
    arguments = [os.fsencode(argument) for argument in process.args]
    if "/" in name:
        failure = _try(os.fsencode(name), arguments, env)
        if failure.errno == errno.ENOENT and os.path.lexists(name) and _is_file(name):
            raise StageError("exec", f'"{name}": its interpreter or loader does not exist', errno=errno.ENOENT, path=name)
        raise _exec_failure(name, failure)
    refused: OSError | None = None
    for folder in env.get(b"PATH", DEFAULT_PATH.encode()).split(b":"):
        path = os.path.join(folder or b".", os.fsencode(name))
        failure = _try(path, arguments, env)
        if failure.errno in (errno.ENOENT, errno.ENOTDIR):
            continue
        refused = refused or failure
        if failure.errno not in (errno.EACCES, errno.EPERM):
            break
    if refused:
        raise _exec_failure(name, refused)
    raise StageError("exec", f'"{name}": executable file not found in $PATH', errno=errno.ENOENT, path=name)


def _try(path: bytes, arguments: list[bytes], env: dict[bytes, bytes]) -> OSError:
    """execve(2), and why it failed."""
    try:
        os.execve(path, arguments, env)
    except OSError as exc:
        return exc


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _exec_failure(name: str, failure: OSError) -> StageError:
    words = {
        errno.ENOENT: "no such file or directory",
        errno.EACCES: "permission denied",
        errno.ENOEXEC: "exec format error",
        errno.ENOTDIR: "not a directory",
    }
    number = failure.errno or 0
    if number == errno.EACCES and os.path.isdir(name):
        return StageError("exec", f'"{name}": is a directory: permission denied', errno=number, path=name)
    return StageError("exec", f'"{name}": {words.get(number, failure.strerror)}', errno=number, path=name)
