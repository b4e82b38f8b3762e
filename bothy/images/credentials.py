"""Who asks a registry."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True)
class Credentials:
    """Who asks; empty for nobody in particular."""

    username: str = ""
    password: str = ""

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
