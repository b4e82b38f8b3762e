"""Detach keys: the sequence that a person types on a terminal to leave a program without ending it (`ctrl-p,ctrl-q`)."""

from __future__ import annotations


def parse(keys: str) -> bytes:
    """The bytes of `ctrl-p,ctrl-q` or `a,b`: single characters and ctrl- with a-z, @, [, \\, ], ^ or _, as in Docker.

    Raises ValueError naming the key that is none. Empty is no sequence.
    """
    sequence = bytearray()
    for key in keys.split(",") if keys else []:
        if len(key) == 1 and key.isascii():
            sequence += key.encode()
        elif len(key) == 6 and key.startswith("ctrl-") and (key[5].isalpha() or key[5] in "@[\\]^_") and key.isascii():
            sequence.append(ord(key[5].upper()) - ord("@"))
        else:
            raise ValueError(f"unknown key {key!r} in detach keys {keys!r}")
    return bytes(sequence)


class Scanner:
    """Looks for the sequence in what is typed; bytes that may be its beginning are held back."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = b""

    def scan(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes for the program, whether the sequence was completed). What follows the sequence is dropped."""
        sequence = self._sequence
        if not sequence or (not self._held and sequence[0] not in data):
            return data, False
        passed = bytearray()
        held = self._held
        for value in data:
            held += bytes((value,))
            while held and not sequence.startswith(held):
                passed.append(held[0])
                held = held[1:]
            if held == sequence:
                self._held = b""
                return bytes(passed), True
        self._held = held
        return bytes(passed), False
