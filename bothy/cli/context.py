"""What a verb works with: the client of the engine (made when first asked for) and where output goes."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bothy.api.client import Client


class Context:
    """`host` is a socket's path from --host, empty for the engine of BOTHY_RUN. `shown` is the verb as it was typed."""

    __slots__ = ("_client", "host", "shown")

    def __init__(self, host: str = "", shown: str = "") -> None:
        self.host = host
        self.shown = shown
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The engine's client; it connects (and starts an engine if none listens) at the first request."""
        if self._client is None:
            from bothy.api.client import Client

            self._client = Client(self.host) if self.host else Client.from_environ()
        return self._client

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        """The JSON of an answer; None where it has no body. Raises BothyError, as `post` and `delete` do."""
        return self.client.request("GET", path, query).json()

    def post(self, path: str, query: dict[str, Any] | None = None, body: dict[str, Any] | None = None) -> Any:
        """Have something done; the JSON of the answer."""
        return self.client.request("POST", path, query, body).json()

    def delete(self, path: str, query: dict[str, Any] | None = None) -> Any:
        """Have something removed; the JSON of the answer."""
        return self.client.request("DELETE", path, query).json()


def out(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(text + "\n")


def terminal_width() -> int:
    """Columns of the terminal that stdout is, 0 if it is none."""
    try:
        return os.get_terminal_size(1).columns if os.isatty(1) else 0
    except OSError:
        return 0


def filters_query(filters: list[str]) -> str:
    """The API's `filters` parameter of `--filter key=value` flags; empty if there are none. Raises UsageError."""
    if not filters:
        return ""
    from bothy import quickjson
    from bothy.cli.errors import UsageError

    found: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"invalid filter {text!r}", hint="--filter takes key=value, for instance status=exited")
        found.setdefault(key.strip().lower(), []).append(value)
    return quickjson.dumps(found)


def path_part(text: str) -> str:
    """A name as a part of an API path. Slashes stay: names of images have them."""
    if text.replace("-", "").replace("_", "").replace(".", "").isalnum() and text.isascii():
        return text
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.~/:@") else "".join(f"%{b:02X}" for b in c.encode()) for c in text)


def each(names: list[str], act: Any, *, quiet: bool = False) -> int:
    """Do something to each of several things: print the name of each that worked, tell the failure of each that did not.

    `act(name)` raises BothyError where it fails. The exit code is 1 if any failed, as Docker's.
    """
    from bothy.cli.errors import tell
    from bothy.errors import BothyError, Unavailable

    code = 0
    for name in names:
        try:
            act(name)
        except Unavailable:
            raise
        except BothyError as exc:
            sys.stdout.flush()
            tell(exc.message, exc.hint)
            code = 1
        else:
            if not quiet:
                out(name)
    return code
