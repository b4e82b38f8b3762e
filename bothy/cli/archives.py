"""import, load, save, export and image bootstrap: how images come to this machine, and what leaves it."""

from __future__ import annotations

import os

from bothy.cli.context import Context, out, path_part
from bothy.cli.errors import Failure, UsageError
from bothy.cli.flags import Command, Values
from bothy.cli.images import split
from bothy.cli.terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CHUNK = 1 << 20


def _opened(path: str) -> int:
    """An fd to read a file, or our stdin for `-` and nothing. Raises Failure."""
    if path in ("", "-"):
        if is_terminal(0):
            raise Failure("stdin is a terminal, an archive is expected there", hint="name a file, or send one: … < FILE")
        return 0
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise Failure(f"can not read {path!r}: {exc.strerror}") from None


def _pieces(fd: int, name: str) -> Iterator[bytes]:
    """What an fd has, to its end, where it is closed (but for our stdin). Raises Failure naming the file."""
    try:
        while piece := os.read(fd, CHUNK):
            yield piece
    except OSError as exc:
        raise Failure(f"can not read {name!r}: {exc.strerror}") from None
    finally:
        if fd:
            os.close(fd)


def load(context: Context, flags: Values) -> int:
    """Docker archives and OCI layouts, also compressed."""
    from bothy.cli.progress import Teller, checked, text_of

    fd = _opened(flags.text("input"))
    quiet = flags.on("quiet")
    response = context.client.request("POST", "/images/load", {"quiet": quiet}, _pieces(fd, flags.text("input") or "stdin"))
    with Teller() as teller:
        for line in checked(response.lines()):
            if "stream" in line:
                out(str(line["stream"]).rstrip("\n"))
            elif not quiet:
                teller.tell(text_of(line))
    return 0


def import_(context: Context, flags: Values) -> int:
    """A root file system as a tar archive; prints the id of the image."""
    from bothy.cli.progress import follow

    if flags.args[0].startswith(("http://", "https://")):
        raise UsageError("importing from a URL is not supported", hint="curl -L URL | bothy import - NAME")
    repository, tag = split(flags.args[1]) if len(flags.args) > 1 else ("", "")
    query = {
        "fromSrc": "-",
        "repo": repository or None,
        "tag": tag or None,
        "message": flags.text("message") or None,
        "changes": flags.many("change"),
        "platform": flags.text("platform") or None,
    }
    fd = _opened(flags.args[0])
    last = follow(context.client.request("POST", "/images/create", query, _pieces(fd, flags.args[0])).lines())
    out(str(last.get("status") or ""))
    return 0


def save(context: Context, flags: Values) -> int:
    """A docker archive to a file or stdout; a file appears whole or not at all."""
    return _deliver(context, flags, "save", "/images/get", {"names": flags.args})


def export(context: Context, flags: Values) -> int:
    """The tar of a root file system, as `save`."""
    return _deliver(context, flags, "export", f"/containers/{path_part(flags.args[0])}/export")


def _deliver(context: Context, flags: Values, verb: str, path: str, query: dict[str, Any] | None = None) -> int:
    """An archive of the engine's, where `--output` says."""
    target = os.path.realpath(flags.text("output")) if flags.given("output") else ""
    if target and os.path.lexists(target) and not os.path.isfile(target):  # a device would be replaced by the archive
        raise Failure(f"can not write {target!r}: it is not a regular file", hint=f"bothy {verb} … > {target}")
    if not target and is_terminal(1):
        raise Failure("stdout is a terminal, an archive does not belong there", hint="-o FILE, or send it on: … > FILE")
    response = context.client.request("GET", path, query)
    if not target:
        from bothy.cli.streams import write

        for piece in response.chunks():
            write(1, piece)
        return 0
    part = f"{target}.part-{os.getpid()}"
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            for piece in response.chunks():
                while piece:
                    piece = piece[os.write(fd, piece) :]
            os.replace(part, target)
        except BaseException:
            os.unlink(part)
            raise
        finally:
            os.close(fd)
    except OSError as exc:
        raise Failure(f"can not write {target!r}: {exc.strerror}") from None
    return 0


def bootstrap(context: Context, flags: Values) -> int:
    """Make an image of what the host's package archive has; prints its name."""
    from bothy.cli.progress import follow

    include = [package for text in flags.many("include") for package in text.replace(",", " ").split()]
    body = {"Source": flags.args[0], "Name": flags.text("tag"), "Include": include}
    last = follow(context.client.request("POST", "/bothy/images/bootstrap", None, body).lines(), quiet=flags.on("quiet"))
    out(str(last["id"] if flags.on("quiet") else last.get("name") or last["id"]))
    return 0


COMMANDS = {
    "import": Command(
        "import",
        "Make an image of a root file system in a tar archive",
        import_,
        arguments="FILE|- [NAME[:TAG]]",
        least=1,
        most=2,
        flags=(
            (
                "change",
                "c",
                "list",
                "instruction",
                "Dockerfile instruction to apply: CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL, …",
            ),
            ("message", "m", "text", "text", "What it is, for the image's history"),
            ("platform", "", "text", "os[/arch]", "Platform of the image"),
        ),
        dynamic="files",
        notes="The archive may be compressed. Nothing in it can reach outside the image.",
        examples=(
            ("bothy import -c 'CMD [\"/bin/sh\"]' rootfs.tar mine:1", "With a program to run"),
            ("tar -C root -c . | bothy import - mine", "From a pipe"),
        ),
    ),
    "load": Command(
        "load",
        "Load images from an archive of docker save, or an OCI layout",
        load,
        flags=(
            ("input", "i", "text", "file", "The archive (default: stdin)"),
            ("quiet", "q", "bool", "", "Do not tell how it goes"),
            ("platform", "", "text", "os[/arch]", "Accepted for Docker's sake"),
        ),
        examples=(
            ("bothy load -i images.tar", "Their names are printed"),
            ("docker save nginx | bothy load", "Straight from Docker"),
        ),
    ),
    "save": Command(
        "save",
        "Write images to an archive that bothy load and docker load read",
        save,
        arguments="IMAGE…",
        least=1,
        most=-1,
        flags=(
            ("output", "o", "text", "file", "The archive (default: stdout)"),
            ("platform", "", "text", "os[/arch]", "Accepted for Docker's sake"),
        ),
        dynamic="images",
        examples=(("bothy save -o two.tar busybox debian:bookworm", "Layers that both have are in it once"),),
    ),
    "export": Command(
        "export",
        "Write the root file system of a container or machine to a tar archive",
        export,
        arguments="CONTAINER",
        least=1,
        most=1,
        flags=(("output", "o", "text", "file", "The archive (default: stdout)"),),
        dynamic="containers",
        notes="What is mounted in it (volumes, for instance) is not in the archive.",
        examples=(("bothy export web | bothy import - web:flat", "An image of one layer"),),
    ),
    "image bootstrap": Command(
        "image bootstrap",
        "Make a base image from the host's own package archive, no registry needed",
        bootstrap,
        arguments="busybox|debian:SUITE",
        least=1,
        most=1,
        flags=(
            ("include", "", "list", "package,…", "More packages to install"),
            ("quiet", "q", "bool", "", "Print only the id"),
            ("tag", "t", "text", "name[:tag]", "Name of the image (default: what was asked for)"),
        ),
        notes="debian:SUITE is made with mmdebstrap from the archive that apt on this host "
        "is set up for; busybox from busybox-static.",
        examples=(
            (
                "bothy image bootstrap debian:bookworm --include python3,curl -t tools",
                "Debian with two more packages, called tools",
            ),
            ("bothy image bootstrap busybox", "A small one, within a second"),
        ),
    ),
}
