"""Files that appear whole or not at all, folders that one process holds, errors in one line."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import pathlib
import platform
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from moe.registry import Mistake

SEAL = "seal"  # the key under which a record has its own
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}
_WRONG_KIND = {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EMLINK}


class Failed(OSError):
    """What the machine or a service did not do; one line that names the place."""


class Unreadable(Mistake):
    """A file that cannot be used: `why`, after its path."""

    def __init__(self, path: str | os.PathLike, why: str):
        super().__init__(f"{path}: {why}")
        self.why = why


def place(text: str, called: str) -> pathlib.Path:
    """The path that a text names, ~ being the user's own folder, ~NAME another's.

    Raises Mistake, one line that begins with `called`, for what can be no path here.
    """
    if "\0" in text:
        raise Mistake(f"{called}: is no path, it has a null character")
    path = pathlib.Path(text)
    try:
        path = path.expanduser()
        os.stat(path)
    except RuntimeError:
        raise Mistake(f"{called}: there is no user {path.parts[0]}") from None
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise Mistake(f"{called}: is no path here ({error.strerror})") from None
    return path


def raw(path: str | os.PathLike) -> bytes:
    """The content of a plain file; raises Unreadable for anything else, and never waits for it."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.read()
    except OSError as error:
        raise Unreadable(path, f"cannot be read ({error.strerror})") from None
    raise Unreadable(path, "is no plain file")


def text(path: str | os.PathLike) -> str:
    """The text of a file; raises Unreadable where it is not UTF-8, or `raw` does."""
    try:
        return raw(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(path, f"is no text in UTF-8 (byte {error.start})") from None


def content(path: str | os.PathLike) -> Any:
    """What a file of JSON holds; raises Unreadable where it holds none, or `text` does."""
    found = text(path)
    try:
        return parsed(found)
    except ValueError as error:
        raise Unreadable(path, f"not JSON ({words(error)})") from None


def parsed(text: str) -> Any:
    """The value of a text of JSON; raises ValueError, also where it is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def strict(value: Any, indent: int | None = None) -> str:
    """JSON as every reader takes it: null for a number that is not finite."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes the whole file (text as UTF-8) or nothing: a reader never sees half of it.

    A link of that name gives way to the file; what it points to stays as it is.
    """
    raw = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.part")
    with open(part, "xb") as file:  # made here, or not at all
        try:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())  # else a machine that loses power may leave an empty file
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def remove(path: pathlib.Path) -> None:
    """Deletes what has that name, a folder with all in it, as far as it can; follows no link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def hold(folder: pathlib.Path, patience_s: float = 0.0, called: str = "folder") -> Iterator[None]:
    """Holds FOLDER/.lock, which says who holds it, while the block runs.

    The system takes it back when its holder dies.

    Args:
      patience_s: how long to wait for another holder.
      called: what the user calls the folder, as "--workdir".

    Raises Mistake, one line, when another process holds it for longer, and when .lock is no plain
    file: what a link points to is not ours.
    """
    lock = folder / ".lock"
    number = _opened(lock)
    try:
        deadline = time.monotonic() + patience_s
        while not _taken(number, lock):
            if time.monotonic() > deadline:
                said = os.pread(number, 200, 0).decode("utf-8", "replace")
                holder = " ".join(said.split()) or "another process"
                raise Mistake(
                    f"{called}={folder}: is in use by {holder}; wait for it, or choose another"
                )
            time.sleep(0.1)
        os.ftruncate(number, 0)
        os.pwrite(number, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        yield
    finally:
        os.close(number)


def _opened(lock: pathlib.Path) -> int:
    """The descriptor of the file, made where it is not; raises Unreadable for another thing."""
    how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        number = os.open(lock, how, 0o666)
    except OSError as error:
        if error.errno not in _WRONG_KIND:
            raise
        raise Unreadable(lock, f"is no plain file ({error.strerror}); remove it") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise Unreadable(lock, "is no plain file; remove it")
    return number


def _taken(number: int, lock: pathlib.Path) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        print(f"{lock}: this file system has no locks; run here only once", file=sys.stderr)
    return True


def digest(path: pathlib.Path, kind: str = "sha256") -> str:
    """The hash of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def sealed(record: dict[str, Any], after: str = "", indent: int | None = None) -> str:
    """A record as strict JSON with the SHA-256 of all that it says; its keys are texts.

    Args:
      after: the seal of the record that it follows, which then is a part of its own.
    """
    record = _finite(record)
    return json.dumps({**record, SEAL: _seal(record, after)}, indent=indent, allow_nan=False)


def unsealed(text: str) -> dict[str, Any]:
    """The record that `sealed` wrote; raises Mistake where the text says anything else."""
    try:
        record = parsed(text)
    except ValueError:
        record = None
    return opened(record)


def opened(record: Any) -> dict[str, Any]:
    """A record without its seal; raises Mistake where the seal is not there or does not fit."""
    said = dict(record) if isinstance(record, dict) else {}
    if said.pop(SEAL, None) != _seal(said):
        raise Mistake("its seal does not fit: a part of it was changed or lost")
    return said


class Line(NamedTuple):
    """A line of JSON lines.

    Attributes:
      number: from 1.
      record: what it says without its seal; None where that is no object of JSON, or does not
        follow from the line before: one of the two was changed, lost or doubled.
      seal: that the next line follows; "" at the start, and after lines that have none.
    """

    number: int
    text: str
    record: dict[str, Any] | None
    seal: str


def lines(text: str) -> Iterator[Line]:
    """The lines of a text of records, each `sealed` after the one before; empty ones left out.

    So is a last line that was cut off. Lines without a seal are taken as they are, up to the first
    that has one.
    """
    seal, whole = "", text.endswith("\n")
    found = text.splitlines()
    for number, line in enumerate(found, start=1):
        if not line.strip():
            continue
        try:
            record = parsed(line)
            own = record.pop(SEAL, "")
        except (ValueError, TypeError, AttributeError):
            if whole or number < len(found):
                yield Line(number, line, None, seal)
            continue
        follows = own == _seal(record, seal) if own else not seal
        seal = own if isinstance(own, str) else seal
        yield Line(number, line, record if follows else None, seal)


def broken(numbers: list[int]) -> str:
    """What to say of lines that do not follow."""
    return (
        f"line {numbers[0]} does not follow from the line before: one of them was changed, lost or "
        f"doubled; lines left out: {len(numbers)}"
    )


def _seal(record: dict[str, Any], after: str = "") -> str:
    return hashlib.sha256((after + json.dumps(record, sort_keys=True)).encode()).hexdigest()


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
