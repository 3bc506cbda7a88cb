"""What a source of text is called, and what it gives: rows of documents, read when asked for."""

import contextlib
import errno
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe import files
from moe.registry import Mistake


class SourceError(Mistake):
    """A source cannot be had or is not what it should be; the message is one line."""


_FULL = re.compile("No space left on device|Disk quota exceeded|File too large")


@contextlib.contextmanager
def room(*folders: Path) -> Iterator[None]:
    """Tells a full disk as SourceError, one line that names the file or else the fuller folder.

    Libraries raise errors of many types for it, so it is known by its number or by its words.
    """
    try:
        yield
    except Exception as error:
        if reason := full(error):
            raise no_room(reason, *folders, of=getattr(error, "filename", None)) from error
        raise


def full(error: BaseException | str) -> str | None:
    """What the system says of a full disk, where that is what the error or its cause is about."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error.strerror
    if found := _FULL.search(str(error)):
        return found[0]
    cause = None if isinstance(error, str) else error.__cause__
    return None if cause is None else full(cause)


def no_room(reason: str, *folders: Path, of: str | None = None) -> SourceError:
    """The line about a full disk."""
    where = of or min(folders, key=lambda folder: shutil.disk_usage(folder).free)
    return SourceError(
        f"{where}: {reason}; make room there, or name another folder by MOE_DATA_DIR (prepared "
        "text), TFDS_DATA_DIR (data sets) or TMPDIR; the same command goes on"
    )


# NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION
NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?")


@dataclass(frozen=True)
class Packages:
    """A pinned corpus, written by its name."""

    name: str = "packages"


@dataclass(frozen=True)
class Folder:
    """Text files in PATH/DOMAIN, written "folder:PATH"."""

    path: Path


@dataclass(frozen=True)
class Tfds:
    """Data sets that were prepared before, written "tfds:NAME+NAME..."."""

    names: tuple[str, ...]


def parse(text: str, where: str = "data.source") -> Packages | Folder | Tfds:
    """The source that the text of a field names; raises Mistake, one line."""
    kind, _, rest = text.partition(":")
    if text in ("packages", "library"):
        return Packages(text)
    if kind == "folder" and rest:
        return Folder(files.place(rest, f"{where}={text}"))
    names = tuple(rest.split("+"))
    if kind == "tfds" and all(NAME.fullmatch(name) for name in names):
        return Tfds(names)
    raise Mistake(
        f"{where}={text}: unknown; valid: packages, library, folder:PATH, tfds:NAME, "
        "tfds:NAME/CONFIG, tfds:NAME+NAME"
    )


SPLITS = ("train", "held_out")
CHUNK = 256  # documents read at once


@dataclass(frozen=True)
class Rows:
    """Documents in a fixed order, read from the disk when they are asked for.

    Attributes:
      where: the folder that an error names.
      source: what `as_data_source` gives: a sequence of dicts, several at once by __getitems__.
      order: the indices in it to read.
      row: from an example to {text, key, desk, class}, desk and class by index.
    """

    where: Path
    source: Any
    order: Sequence[int]
    row: Callable[[dict], dict]

    def chunks(self) -> int:
        """How many calls of `chunk` read everything."""
        return -(-len(self.order) // CHUNK)

    def chunk(self, number: int) -> list[dict]:
        """Rows from number * CHUNK on."""
        chosen = [int(i) for i in self.order[number * CHUNK : (number + 1) * CHUNK]]
        try:
            return [self.row(example) for example in self.source.__getitems__(chosen)]
        except Exception as error:  # array_record and protobuf raise errors of many types
            raise damaged(self.where, error) from error

    def __iter__(self) -> Iterator[dict]:
        for number in range(self.chunks()):
            yield from self.chunk(number)


def damaged(folder: Path, error: object) -> SourceError:
    """The one line about files that cannot be read or are not what they were."""
    if isinstance(error, Exception):
        error = f"{type(error).__name__}: {error}".splitlines()[0]
    return SourceError(f"{folder}: damaged ({error}); delete this folder and start again")


@dataclass(frozen=True)
class Text:
    """Labelled text that is ready to be tokenised; split name -> its parts, one after the other."""

    desks: list[str]
    classes: list[str]
    splits: dict[str, list[Rows]]
