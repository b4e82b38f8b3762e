"""The agent's end of the wire: frames in, frames out, over the virtio-serial port. Non-blocking, on the loop.

What can not be sent at once is kept; `crowded` tells streams to wait before more piles up.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from bothy.keeper.loop import IN, OUT, Loop
from bothy.machines import wire

_READ = 64 * 1024
_CROWDED = 128 * 1024


class Port:
    """`on_frame` gets every frame; `on_room` is called when the port is no longer crowded."""

    def __init__(self, loop: Loop, fd: int, on_frame: Callable[[wire.Frame], None], on_room: Callable[[], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._on_frame = on_frame
        self._on_room = on_room
        self._decoder = wire.Decoder()
        self._out = bytearray()
        os.set_blocking(fd, False)
        loop.watch(fd, IN, self._event)

    @property
    def crowded(self) -> bool:
        return len(self._out) >= _CROWDED

    def send(self, data: bytes) -> None:
        """Send encoded frames, now or as soon as they fit."""
        if self._out:
            self._out += data
            return
        done = self._write(data)
        if done < len(data):
            self._out += data[done:]
            self._loop.watch(self._fd, IN | OUT, self._event)

    def say(self, **message: object) -> None:
        """Send a message."""
        self.send(wire.encode_message(message))

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def _event(self, events: int) -> None:
        if events & OUT:
            self._flush()
        if events & IN:
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                return
            for frame in self._decoder.feed(data):
                self._on_frame(frame)

    def _flush(self) -> None:
        was_crowded = self.crowded
        while self._out:
            done = self._write(self._out[:_READ])
            if not done:
                break
            del self._out[:done]
        if not self._out:
            self._loop.watch(self._fd, IN, self._event)
        if was_crowded and not self.crowded:
            self._on_room()
