"""A folder of text as labelled documents: FOLDER/DOMAIN/SOURCE, domains as desks.

SOURCE is a folder, or a file that is over a fiftieth of its domain; the other files of a domain
share one. Such a large file is cut into pieces, which are held out one by one; other files are
held out whole. Files straight in FOLDER make a domain that is named after it.
"""

import dataclasses
import hashlib
import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moe.data.sources import contents
from moe.data.sources.contract import SourceError

PART = 50  # of a domain; a larger file is cut
PIECE = 2**18  # bytes, the longest document
FILE = 2**30  # bytes, the longest file


@dataclass(frozen=True)
class File:
    """A file of the folder; parts are its path below the folder, digest is of its content."""

    path: str
    parts: tuple[str, ...]
    state: contents.State
    digest: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.state.size


@dataclass(frozen=True)
class Piece:
    """A document that is read from its file when its text is asked for, start to stop in bytes."""

    key: str
    desk: str
    label: str
    group: str
    file: File
    start: int
    stop: int
    digest: str
    trained: bool = False

    @property
    def size(self) -> int:
        """Bytes of the text."""
        return self.stop - self.start

    @property
    def text(self) -> str:
        """Read from the disk each time; raises SourceError when the file is another by then."""
        content = contents.read(self.file.path, self.file.state, self.start, self.size)
        return content.decode("utf-8", "replace")


def scan(folder: Path, memory: Path | None = None) -> list[File]:
    """The files below the folder, sorted; names that start with a dot are left out.

    Args:
      memory: where hashes are remembered (`contents.digests`).

    Raises SourceError, one line, when there is none, or at one that is too long, unreadable or no
    regular file.
    """
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise SourceError(f"data.source=folder:{folder}: {state}")
    files = sorted(_files(str(folder), (), ()), key=lambda file: file.parts)
    if not files:
        raise _empty(folder)
    digests = contents.digests({file.path: file.state for file in files}, memory)
    return [
        dataclasses.replace(file, digest=digest)
        for file, digest in zip(files, digests, strict=True)
    ]


def _empty(folder: Path) -> SourceError:
    return SourceError(
        f"data.source=folder:{folder}: holds no text; put text files into {folder}/DOMAIN"
    )


def _files(folder: str, parts: tuple[str, ...], above: tuple) -> Iterator[File]:
    try:
        here = os.stat(folder)
        identity = here.st_dev, here.st_ino
        if identity in above:
            raise SourceError(f"{folder}: is a link to a folder that holds it; remove it")
        for name in os.listdir(folder):
            if name.startswith("."):
                continue
            path = os.path.join(folder, name)
            if not name.isprintable() or name != name.strip():
                raise SourceError(f"{path!a}: must have a printable name, no space at its ends")
            found = os.stat(path)
            if stat.S_ISDIR(found.st_mode):
                yield from _files(path, (*parts, name), (*above, identity))
            elif not stat.S_ISREG(found.st_mode):
                raise SourceError(f"{path}: is neither a file nor a folder; remove it")
            elif found.st_size > FILE:
                size = found.st_size
                raise SourceError(f"{path}: has {size} bytes: must be at most {FILE}; split it")
            else:
                yield File(path, (*parts, name), contents.state(found))
    except OSError as error:
        raise SourceError(f"{error.filename}: cannot be read: {error.strerror}") from error


def fingerprint(files: list[File]) -> str:
    """SHA-256 of all names and contents."""
    rows = [[*file.parts, file.digest] for file in files]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def documents(folder: Path, files: list[File]) -> list[Piece]:
    """Reads and checks every file; white space alone is left out.

    Raises SourceError, one line, for a file that is no UTF-8, binary, too long or unreadable.
    """
    domains = defaultdict(list)
    for file in files:
        domains[file.parts[0] if len(file.parts) > 1 else folder.resolve().name].append(file)
    found, cuts = [], {}
    for domain, members in domains.items():
        large = max(1, sum(file.size for file in members) // PART)
        for file in members:
            found += _pieces(file, domain, large, cuts)
    if not found:
        raise _empty(folder)
    return found


def _pieces(file: File, domain: str, large: int, cuts: dict[str, list]) -> Iterator[Piece]:
    """The documents of a file; one that was seen before is cut in the same places again."""
    whole, alone = "/".join(file.parts), file.size > large
    own = whole.split("/")[-1] if alone else "files"
    label = f"{domain}/{file.parts[1] if len(file.parts) > 2 else own}"
    if file.digest not in cuts:
        content = _checked(file)
        longest = max(4, min(large, PIECE)) if alone else PIECE
        cuts[file.digest] = [
            (start, stop, hashlib.sha256(content[start:stop]).hexdigest())
            for start, stop in _cuts(content, longest)
        ]
    for start, stop, digest in cuts[file.digest]:
        key = f"{whole}:{start:012d}"
        yield Piece(key, domain, label, key if alone else whole, file, start, stop, digest)


def _checked(file: File) -> bytes:
    """The bytes of a text file; none when it is all white space."""
    content = contents.read(file.path, file.state)
    if (zero := content.find(b"\0")) >= 0:
        raise SourceError(f"{file.path}: byte {zero} is 0: must be text, not binary; remove it")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file.path}: byte {error.start} is no UTF-8; convert it") from None
    return content if content.strip() else b""


def _cuts(content: bytes, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most `limit` bytes that end at the end of a line, or inside a long line."""
    start = 0
    while len(content) - start > limit:
        stop = content.rfind(b"\n", start + limit // 2, start + limit) + 1
        if not stop:
            stop = start + limit
            while content[stop] & 0xC0 == 0x80:  # inside a character
                stop -= 1
        if content[start:stop].strip():
            yield start, stop
        start = stop
    if content[start:].strip():
        yield start, len(content)
