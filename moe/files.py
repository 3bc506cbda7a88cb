"""Files that appear whole or not at all, folders that one process holds, errors in one line."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from moe.registry import Mistake

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


class Failed(OSError):
    """What the machine or a service did not do; one line that names the place."""


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes the whole file (text as UTF-8) or nothing: a reader never sees half of it."""
    raw = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.part")
    try:
        part.write_bytes(raw)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def hold(folder: pathlib.Path, patience_s: float = 0.0, called: str = "folder") -> Iterator[None]:
    """Holds FOLDER/.lock, which says who holds it, while the block runs.

    The system takes it back when its holder dies.

    Args:
      patience_s: how long to wait for another holder.
      called: what the user calls the folder, as "--workdir".

    Raises Mistake, one line, when another process holds it for longer.
    """
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        deadline = time.monotonic() + patience_s
        while not _taken(file):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise Mistake(
                    f"{called}={folder}: is in use by {holder}; wait for it, or choose another"
                )
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def _taken(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        print(f"{file.name}: this file system has no locks; run here only once", file=sys.stderr)
    return True


def digest(path: pathlib.Path, kind: str = "sha256") -> str:
    """The hash of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def sealed(record: dict[str, Any]) -> str:
    """A record as JSON with the SHA-256 of all that it says; its keys are texts."""
    return json.dumps({**record, "seal": _seal(record)})


def unsealed(text: str) -> dict[str, Any]:
    """The record that `sealed` wrote; raises Mistake where the text says anything else."""
    try:
        record = json.loads(text)
        seal = record.pop("seal")
        whole = seal == _seal(record)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise Mistake("its seal does not fit: a part of it was changed or lost")
    return record


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def numbers(names: Iterable[str]) -> list[int]:
    """The names that are whole numbers, in order."""
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def words(error: Exception) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split())


def one_line(error: Exception, longest: int = 160) -> str:
    """The kind and the first words of an error."""
    text = words(error)
    return f"{type(error).__name__}: {text[:longest]}{'...' * (len(text) > longest)}".rstrip(": ")
