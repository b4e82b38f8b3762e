"""What of an image's description its record does not say by itself: the body of /images/{name}/history, and times of any hand."""

from __future__ import annotations

import calendar
import re
import time
from typing import Any

from bothy.images.model import Image

_SECONDS = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")
MISSING = "<missing>"


def unix_time(text: str) -> int:
    """An RFC 3339 time in seconds since the epoch, 0 for what is none."""
    match = _SECONDS.fullmatch(text)
    if match is None:
        return 0
    try:
        seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0
    if match[2] == "Z":
        return seconds
    offset = int(match[2][1:3]) * 3600 + int(match[2][4:]) * 60
    return seconds - offset if match[2][0] == "+" else seconds + offset


def history(image: Image, sizes: list[int]) -> list[dict[str, Any]]:
    """The body of /images/{name}/history, newest first. `sizes` are those of the layers, bottom first."""
    left = iter(sizes)
    steps: list[dict[str, Any]] = [
        {
            "Id": MISSING,
            "Created": unix_time(step.created),
            "CreatedBy": step.created_by,
            "Tags": None,
            "Size": 0 if step.empty_layer else next(left, 0),
            "Comment": step.comment,
        }
        for step in image.history
    ]
    steps.reverse()
    if steps:
        steps[0] |= {"Id": image.id, "Tags": image.repo_tags or None}
    return steps
