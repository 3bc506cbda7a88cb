"""Files by their content: hashes that are remembered while the system says that nothing changed."""

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from moe import files
from moe.data.sources.contract import SourceError
from moe.registry import Mistake

SETTLED_S = 2.0  # a file that changed later may change again without another time
EDGE = 2**16  # bytes at each end, of files that are not hashed whole


class State(NamedTuple):
    """What the system says of a file; another one after every write to it. Times in ns."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def state(found: os.stat_result) -> State:
    """The state that a call of `os.stat` tells."""
    return State(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read(path: str, expected: State, start: int = 0, size: int = -1) -> bytes:
    """Bytes of a file; raises SourceError where it cannot be read, or has another state by then."""
    with _read(path, expected) as file:
        file.seek(start)
        return file.read(size)


@contextlib.contextmanager
def _read(path: str, expected: State):
    try:
        with open(path, "rb") as file:
            yield file
            now = state(os.fstat(file.fileno()))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    if now != expected:
        raise SourceError(f"{path}: was changed while it was read; start again")


def digests(found: Mapping[str, State], memory: Path | None, whole: bool = True) -> list[str]:
    """SHA-256 of each file, of the ones that are remembered in their state without reading them.

    Not seen is what writes to a file and leaves its inode, size and both times as they were, as
    a damaged disk does.

    Args:
      found: path -> state.
      memory: a file of ours; without it, or where it is damaged, every file is read.
      whole: else only the length and EDGE bytes at each end are hashed.
    """
    known = _remembered(memory)
    now, kept, result = time.time_ns(), {}, []
    for path, state_ in found.items():
        row = known.get(path, [])
        if row[:-1] != [whole, *state_]:
            row = [whole, *state_, _digest(path, state_, whole)]
        if now - state_.changed > SETTLED_S * 1e9:
            kept[path] = row
        result.append(row[-1])
    if memory is not None and kept != known:
        with contextlib.suppress(OSError):  # then every file is read again the next time
            memory.parent.mkdir(parents=True, exist_ok=True)
            files.write(memory, files.sealed(kept))
    return result


def _remembered(memory: Path | None) -> dict:
    try:
        return files.unsealed(memory.read_text("utf-8")) if memory is not None else {}
    except (OSError, UnicodeDecodeError, Mistake):
        return {}


def _digest(path: str, expected: State, whole: bool) -> str:
    with _read(path, expected) as file:
        if whole:
            return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256(f"{expected.size}\n".encode())
        for start in (0, max(0, expected.size - EDGE)):
            file.seek(start)
            total.update(file.read(EDGE))
        return total.hexdigest()
