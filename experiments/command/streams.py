"""The standard streams: open, of any encoding, and told in one line where they take no more."""

import codecs
import contextlib
import os
import sys

_PLAIN = {
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "×": "x",
    "±": "+-",
    "≤": "<=",
    "≥": ">=",
    "·": ".",
}


def prepare() -> None:
    """Opens those that are closed, and lets the output replace what its encoding does not have.

    A number that is free would else go to the next file that is opened, and get what is printed.
    """
    for number, how in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, how)  # takes the lowest number; to write into 1 fails, and is told
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    codecs.register_error("plain", _replaced)
    sys.stdout.reconfigure(errors="plain")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in text), error.end


def lost() -> str | None:
    """Why what was printed cannot be delivered, or None where it was."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return f"standard output: {error.strerror}"
    return None


def tell(line: str) -> None:
    """Prints a line on standard error, if that can be."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def finish(code: int) -> int:
    """The exit code, 2 where the output is lost; the interpreter says nothing of it any more."""
    why = lost()
    if why is None:
        return code
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if code == 0:
        tell(f"error: {why}")
    return code or 2
