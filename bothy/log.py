"""Logging: one logger a room, to stderr (of the daemon: its log file). BOTHY_DEBUG=room,room shows those rooms' debug."""

from __future__ import annotations

import logging
import os
import sys


def logger(room: str) -> logging.Logger:
    """The logger of a room: `logger("networks")`."""
    return logging.getLogger(f"bothy.{room}")


def configure() -> None:
    """Send records to stderr; rooms named in BOTHY_DEBUG (or `all`) at debug level, the rest at info."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(name)s: %(message)s"))
    root = logging.getLogger("bothy")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for room in filter(None, os.environ.get("BOTHY_DEBUG", "").split(",")):
        (root if room == "all" else logger(room)).setLevel(logging.DEBUG)
