"""Our own interpreter, seen through a mount that nobody can write to.

A process of ours that runs inside a container (between fork and exec, or for ever as its init) has /proc/<pid>/exe, a door to the
file it runs from; a program of the container that is root on the host (no user namespace) could open that door and, once nobody
runs the file, write to the host's interpreter (CVE-2019-5736). Through a read-only mount the door opens for reading only. The mount
is attached nowhere: nothing is seen of it, and it goes with the last process that runs from it.
"""

from __future__ import annotations

import os

from bothy.linux import mounts, syscalls


def sealed() -> int:
    """A descriptor of the running interpreter on such a mount; start a program from `/proc/self/fd/<fd>`, passing the fd.

    The caller owns it. OSError where mounts are not ours to make.
    """
    tree = mounts.clone_tree(syscalls.AT_FDCWD, os.path.realpath("/proc/self/exe"))
    try:
        mounts.set_attributes(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY, propagation=syscalls.MS_PRIVATE)
    except BaseException:
        os.close(tree)
        raise
    return tree
