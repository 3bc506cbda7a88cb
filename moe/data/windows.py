"""Any text in windows, in order: read document by document, as a trace of a model wants it."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from moe.files import Unreadable
from moe.registry import Mistake

if TYPE_CHECKING:
    from moe.data.loader import Dataset

AT_ONCE = 2**16  # tokens that are held at once, at least
_PIECE = 2**18  # characters of a file


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of text, int32; class is the finer one of the document, as in `loader.Batch`.

    Numbers of desks and classes that the data set does not know come after its own.
    """

    id_WL: np.ndarray
    target_WL: np.ndarray
    desk_WL: np.ndarray
    class_WL: np.ndarray
    document_WL: np.ndarray


@dataclasses.dataclass(frozen=True)
class Text:
    """A text outside of the data set.

    Attributes:
      desks, classes: the data set's names, and the text's own after them.
      bytes: of all of it.
      read: gives the tokens of part after part: ids, and number of desk, class and document.
    """

    desks: tuple[str, ...]
    classes: tuple[str, ...]
    bytes: int
    read: Callable[[], Iterator[tuple[np.ndarray, int, int, int]]]

    def windows(self, length: int, tokens: int | None = None) -> Iterator[Windows]:
        """Windows of `length` tokens with the token after each, or one of all of a shorter text.

        What is left at the end is left out. Holds about AT_ONCE tokens.

        Args:
          tokens: at most so many; None is all.

        Raises Mistake where there are fewer than two tokens.
        """
        block = max(1, AT_ONCE // length)
        held, seen = np.zeros((4, 0), np.int32), 0
        most = None if tokens is None else max(1, tokens // length)
        for ids, *of in self.read():
            rows = np.repeat(np.array([[0], *([n] for n in of)], np.int32), len(ids), axis=1)
            rows[0] = ids
            held = np.concatenate([held, rows], axis=1)
            while (held.shape[1] - 1) // length >= block:
                count = block if most is None else min(block, most - seen)
                yield _cut(held, count, length)
                held, seen = held[:, count * length :], seen + count
                if seen == most:
                    return
        left = held.shape[1] - 1
        if left < 1 and not seen:
            raise Mistake(f"--text: must have two tokens, has {left + 1}")
        length = length if seen else min(length, left)
        count = left // length if length else 0
        count = count if most is None else min(count, most - seen)
        if count:
            yield _cut(held, count, length)


def _cut(held: np.ndarray, count: int, length: int) -> Windows:
    size = count * length
    id_, desk, class_, document = (row[:size].reshape(count, length) for row in held)
    return Windows(id_, held[0, 1 : size + 1].reshape(count, length), desk, class_, document)


def open_text(path: pathlib.Path, dataset: "Dataset") -> Text:
    """A plain file, whose desk has its name, or FOLDER/DOMAIN/SOURCE, domains being desks.

    A file is one document, with the end token after it. Raises Mistake, one line, for what is
    neither a file nor a folder with some, or no text in UTF-8.
    """
    if path.is_dir():
        from moe.data.sources import folder

        files = [
            (pathlib.Path(file.path), *_labels(path, file.parts)) for file in folder.scan(path)
        ]
    elif path.is_file():
        files = [(path, path.stem, path.stem)]
    else:
        state = "is neither a file nor a folder" if os.path.lexists(path) else "does not exist"
        raise Mistake(f"--text={path}: {state}")
    desks = tuple(dict.fromkeys([*dataset.desks, *(desk for _, desk, _ in files)]))
    classes = tuple(dict.fromkeys([*dataset.classes, *(label for *_, label in files)]))
    end = np.array([dataset.vocab_size - 1], np.uint16)

    def read():
        for number, (file, desk, label) in enumerate(files):
            of = desks.index(desk), classes.index(label), number
            for part in _parts(file):
                yield dataset.encode(part), *of
            yield end, *of

    return Text(desks, classes, sum(file.stat().st_size for file, *_ in files), read)


def _labels(path: pathlib.Path, parts: tuple[str, ...]) -> tuple[str, str]:
    """Desk and class of a file by its path below the folder."""
    desk = parts[0] if len(parts) > 1 else path.resolve().name
    return desk, f"{desk}/{parts[min(1, len(parts) - 1)]}"


def _parts(path: pathlib.Path) -> Iterator[str]:
    """The text of a file, cut at ends of lines; raises Unreadable for what is no UTF-8."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            while part := file.read(_PIECE):
                yield part + file.readline(_PIECE)
    except UnicodeDecodeError:
        raise Unreadable(path, "is no text in UTF-8") from None
    except OSError as error:
        raise Unreadable(path, f"cannot be read ({error.strerror})") from None
