"""How a daemon starts the spawner: the command line, by itself so that it costs nothing to import.

By hand, a spawner with nobody to talk to ends at once; with a socket from a Python prompt it does what it is told:

    from bothy.linux import channel; from bothy.spawner import command; import subprocess
    mine, other = channel.pair()
    process = subprocess.Popen(command.argv(other.fileno()), pass_fds=[other.fileno()]); other.close()
    channel.send(mine, {"op": "bye"})
"""

from __future__ import annotations

import os
import sys

_START = "import sys; sys.path.insert(0, sys.argv[1]); from bothy.spawner.main import main; sys.exit(main(sys.argv[2:]))"


def argv(fd: int, python: str = sys.executable) -> list[str]:
    """The command of a spawner that talks to its daemon over the inherited descriptor `fd`.

    Isolated and without site-packages: it starts in a quarter of the time, and needs the standard library only.
    """
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [python, "-I", "-S", "-c", _START, here, "--socket", str(fd)]
