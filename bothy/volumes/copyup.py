"""Fill an empty volume with what an image has at the place where the volume will be mounted.

The image's files were made by a stranger. So the path is resolved inside the image by the kernel (openat2, RESOLVE_IN_ROOT);
from there on `bothy.volumes.copying` does it.

The merged view of several layers is an overlay mounted in a mount namespace that a thread makes for itself: nobody else sees it,
and it is gone with the thread, however that ends.
"""

from __future__ import annotations

import os
import threading

from bothy.linux import mounts, syscalls
from bothy.volumes import copying

_XATTRS = ("user.", "security.capability", "system.posix_acl_")


def copy_up(layers: list[str], destination: str, target: int) -> bool:
    """Copy what the image of `layers` (topmost first) has at `destination` into the open folder `target`, if that is empty.

    True if the image has a folder there. Owners, modes, times, links, extended attributes and holes are kept; sockets are left
    out. Raises OSError; then the folder is empty again.
    """
    if not copying.is_empty(target):
        return False
    if len(layers) == 1:
        return _copy_up(layers, destination, target)
    outcome: list[bool | BaseException] = []

    def work() -> None:
        try:
            outcome.append(_copy_up(layers, destination, target))
        except BaseException as exc:  # raised below, in the caller's thread
            outcome.append(exc)

    thread = threading.Thread(target=work, name="copy-up")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _copy_up(layers: list[str], destination: str, target: int) -> bool:
    image = _merged(layers)
    try:
        source = mounts.open_in_root(image, destination, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    finally:
        os.close(image)
    try:
        copying.Copy(lambda name: name.startswith(_XATTRS)).folder(source, target)
    except BaseException:
        copying.empty(target)
        raise
    finally:
        os.close(source)
    return True


def _merged(layers: list[str]) -> int:
    """The root folder of the image; this thread gets a mount namespace of its own where there are several layers."""
    if len(layers) == 1:
        return os.open(layers[0], copying.FOLDER)
    syscalls.unshare(syscalls.CLONE_NEWNS)  # takes along a working folder of the thread's own
    mounts.make_private()
    place = os.path.dirname(os.path.abspath(layers[0]))
    fds = [os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for layer in layers]
    try:
        os.chdir("/proc/self/fd")  # mount(2) takes a page of options: names of layers as short as can be
        data = mounts.overlay_data([str(fd) for fd in fds], "", "")
        syscalls.mount("overlay", place, "overlay", syscalls.MS_RDONLY, data)
    finally:
        for fd in fds:
            os.close(fd)
    return os.open(place, copying.FOLDER)
