"""Our terminal: raw mode and back, its size, and the keys that detach from it. `termios` is loaded only if there is one."""

from __future__ import annotations

import os

from bothy.cli.errors import Failure, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def is_terminal(fd: int) -> bool:
    """Whether an fd is a terminal; a closed one is none."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size() -> tuple[int, int]:
    """(height, width) of the terminal we are on, (0, 0) if there is none."""
    for fd in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        return rows, columns
    return 0, 0


def check(*, stdin: bool, tty: bool) -> None:
    """Raise Failure where a terminal was asked for and our stdin is none, as Docker does."""
    if stdin and tty and not is_terminal(0):
        raise Failure("the input device is not a terminal", hint="leave out -t, or -i if no input is needed")


class Raw:
    """Raw mode of stdin for as long as the context lasts; nothing if it is no terminal."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted and is_terminal(0)
        self._saved: list[object] | None = None

    def __enter__(self) -> Raw:
        if self._wanted:
            import termios

            saved = termios.tcgetattr(0)
            mode = termios.tcgetattr(0)
            mode[0] &= ~(
                termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
                | termios.IGNCR | termios.ICRNL | termios.IXON
            )  # fmt: skip
            mode[1] &= ~termios.OPOST
            mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
            mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSADRAIN, mode)
            self._saved = list(saved)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if self._saved is not None:
            import termios

            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            except termios.error:
                pass  # the terminal is gone


def key_codes(text: str) -> bytes:
    """The bytes of `ctrl-p,ctrl-q` or `a,ctrl-@,x`. Raises UsageError for a key that is none."""
    codes = []
    for key in (text or DEFAULT_DETACH_KEYS).split(","):
        letter = key.removeprefix("ctrl-")
        if key != letter and len(letter) == 1 and "a" <= letter.lower() <= "z":
            codes.append(ord(letter.lower()) - ord("a") + 1)
        elif key != letter and letter in CONTROL:
            codes.append(CONTROL[letter])
        elif key == letter and len(key) == 1 and key.isascii():
            codes.append(ord(key))
        else:
            raise UsageError(f"invalid detach keys {text!r}", hint="keys are letters and ctrl-LETTER with commas: ctrl-p,ctrl-q")
    return bytes(codes)


class DetachKeys:
    """Looks for the detach keys in what is typed; holds back a beginning of them until it is clear that it is none."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to send, whether the keys were typed). What follows the keys is dropped."""
        if not self._matched and self._keys[:1] not in data:
            return data, False
        send = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(send), True
                continue
            send += self._keys[: self._matched]
            self._matched = 0
            if byte == self._keys[0]:
                self._matched = 1
            else:
                send.append(byte)
        return bytes(send), False
