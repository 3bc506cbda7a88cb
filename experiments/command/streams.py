"""The standard streams: open, of any encoding, and told in one line where they take no more."""

import codecs
import contextlib
import io
import os
import sys
from typing import TextIO

from moe.files import Failed

_PLAIN = {"−": "-", "–": "-", "—": "-", "…": "...", "×": "x", "±": "+-", "≤": "<=", "≥": ">="}


class Output(io.FileIO):
    """A descriptor whose failures say which stream it is: full, closed, or read by nobody."""

    def write(self, data) -> int | None:
        """Writes some of the bytes; raises Failed, one line."""
        try:
            return super().write(data)
        except OSError as error:
            raise Failed(f"standard output: {error.strerror}") from None


def prepare() -> None:
    """Opens the streams that are closed, and makes an output that takes every letter.

    A number that is free would else go to the next file that is opened, and get what is printed.
    """
    for number, how in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, how)  # takes the lowest number; to write into 1 fails, and is told
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    sys.stdout = writer(io.BufferedWriter(Output(1, "w", closefd=False)), encoding)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def writer(raw: io.BufferedIOBase, encoding: str) -> TextIO:
    """A stream of text that replaces what its encoding does not have; as it comes on a terminal."""
    codecs.register_error("plain", _replaced)
    return io.TextIOWrapper(raw, encoding, "plain", line_buffering=raw.isatty())


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in text), error.end


def tell(line: str) -> None:
    """Prints a line on standard error, if that can be."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def finish(code: int) -> int:
    """The exit code, 2 where not all of the output is delivered; nothing is left to print."""
    try:
        sys.stdout.flush()
        return code
    except Failed as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if code == 0:
            tell(f"error: {error}")
        return code or 2
