"""The `bothy` script: three lines that start the command line without pip's and site's preparations, which cost 20 ms.

    python -m bothy.cli.launcher install [FOLDER]       beside the interpreter, or in a folder

    #!/venv/bin/python -IS          isolated: neither the environment nor the current folder can change what is imported; no site
    import sys
    sys.path.append("/where/bothy/is")
    from bothy.cli.main import launch
    launch()

It works for an installed wheel and for a checkout (`pip install -e`); installing again replaces it in one step. The modules are
compiled beforehand, for the first command of a read-only or another user's installation must not pay for that.
"""

from __future__ import annotations

import compileall
import os
import sys

LONGEST_SHEBANG = 127  # bytes that every kernel reads (execve(2): 255 since Linux 5.1)
BODY = """\
import sys
sys.path.append({root!r})
from bothy.cli.main import launch
launch()
"""


def script(python: str, root: str) -> str:
    """The text of the launcher. A path that no `#!` line can have goes through sh, in a line that is a string for Python."""
    shebang = f"#!{python} -IS\n"
    if " " in python or len(os.fsencode(shebang)) > LONGEST_SHEBANG:
        quoted = "'" + python.replace("'", "'\"'\"'") + "'" if "'" in python else f'"{python}"'
        shebang = f"#!/bin/sh\n'''exec' {quoted} -IS \"$0\" \"$@\"\n' '''\n"
    return shebang + BODY.format(root=root)


def package_root() -> str:
    """The folder that has the package `bothy`."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def install(folder: str) -> str:
    """Write `bothy` into a folder, replacing what is there in one step; its path. Raises OSError, and then nothing has changed."""
    root = package_root()
    path, new = os.path.join(folder, "bothy"), os.path.join(folder, f".bothy-{os.getpid()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(script(sys.executable, root))
            os.fchmod(fd, 0o755)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
    compileall.compile_dir(os.path.join(root, "bothy"), quiet=2)
    return path


def main(argv: list[str]) -> int:
    """`install [FOLDER]`: write the launcher and print its path."""
    if not argv or argv[0] != "install" or len(argv) > 2:
        sys.stderr.write("usage: python -m bothy.cli.launcher install [FOLDER]\n")
        return 2
    folder = argv[1] if len(argv) > 1 else os.path.dirname(sys.executable)
    try:
        path = install(folder)
    except OSError as exc:
        sys.stderr.write(f"bothy: can not write a launcher into {folder}: {exc.strerror}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
