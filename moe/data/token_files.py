"""Tokenised documents on disk: written document by document, read as memory maps."""

import array
import dataclasses
import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from moe import files
from moe.data import tokenizer
from moe.data.sources.contract import Rows, Text
from moe.registry import Mistake

CHECKED = 2**30  # bytes: of a longer file only the length is checked when it is opened


@dataclasses.dataclass(frozen=True)
class Split:
    """Documents of a split one after the other, each followed by the end token.

    Attributes:
      id: uint16, every token; a memory map.
      tokens: int64, tokens of each document, the end included.
      bytes: int64, bytes of each document.
      desk, label: int32, labels of each document.
      key: name of each document in UTF-8; empty for those of the TFDS catalogue.
    """

    id: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    desk: np.ndarray
    label: np.ndarray
    key: np.ndarray

    @property
    def keys(self) -> tuple[str, ...]:
        """The name of each document."""
        return tuple(key.decode() for key in self.key)

    @functools.cached_property
    def ends(self) -> np.ndarray:
        """int64, the place after each document."""
        return np.cumsum(self.tokens)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A tokenised corpus and the folder that holds it; count_V is of the training tokens."""

    folder: Path
    fingerprint: str
    desks: tuple[str, ...]
    classes: tuple[str, ...]
    tokenizer: tokenizer.Tokenizer
    count_V: np.ndarray
    train: Split
    held_out: Split


def write(
    folder: Path, corpus: str, text: Text, coder: tokenizer.Tokenizer, limit: int | None = None
) -> None:
    """Encodes the text into an empty folder.

    Args:
      corpus: its fingerprint.
      limit: documents of each part of each split, at most.
    """
    files.write(folder / "tokenizer.json", coder.json.encode())
    index: dict[str, Any] = {"corpus": corpus, "tokenizer": coder.fingerprint}
    index |= {"desks": text.desks, "classes": text.classes, "splits": {}}
    for split, parts in text.splits.items():
        chunks = (chunk for rows in parts for chunk in limited(rows, limit))
        count_V = _write_split(folder, split, chunks, coder)
        names = [f"{split}.npy", f"{split}-documents.npz"]
        index["splits"][split] = [files.digest(folder / name) for name in names]
        if split == "train":
            index["count"] = count_V.tolist()
    (folder / "index.json").write_text(json.dumps(index))


def limited(rows: Rows, limit: int | None) -> Iterable[list[dict]]:
    """The chunks of rows, cut after `limit` rows."""
    left = len(rows.order) if limit is None else limit
    for number in range(rows.chunks()):
        if left <= 0:
            return
        chunk = rows.chunk(number)[:left]
        left -= len(chunk)
        yield chunk


def _write_split(folder: Path, split: str, chunks, coder: tokenizer.Tokenizer) -> np.ndarray:
    """Writes a split's tokens, then what is known of its documents; returns its count_V."""
    numbers = {name: array.array("q") for name in ("tokens", "bytes", "desk", "label")}
    keys, count_V = [], np.zeros(coder.vocab_size, np.int64)
    with open(folder / f"{split}.npy", "wb") as file:
        _head(file, 0)
        for chunk in chunks:
            texts = [row["text"] for row in chunk]
            encoded = [np.append(ids, np.uint16(coder.end)) for ids in coder.encode_all(texts)]
            count_V += np.bincount(np.concatenate(encoded), minlength=coder.vocab_size)
            for row, text, ids in zip(chunk, texts, encoded, strict=True):
                file.write(ids.tobytes())
                known = (len(ids), len(text.encode()), row["desk"], row["class"])
                for column, value in zip(numbers.values(), known, strict=True):
                    column.append(value)
                keys.append(row["key"].encode())
        file.seek(0)
        _head(file, sum(numbers["tokens"]))
    columns = {name: np.array(column, np.int64) for name, column in numbers.items()}
    columns["key"] = np.array(keys) if any(keys) else np.zeros(len(keys), "S1")
    np.savez(folder / f"{split}-documents.npz", **columns)  # pyright: ignore[reportArgumentType]
    return count_V


def _head(file: io.BufferedIOBase, count: int) -> None:
    """The header of an array of `count` tokens; as long for any count."""
    about = {"descr": "<u2", "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, about)


def read(folder: Path) -> Tokens | None:
    """The tokens that `write` left there; None when they are not there or damaged."""
    try:
        index = files.parsed((folder / "index.json").read_text("utf-8"))
        coder = _checked(folder / "tokenizer.json", index["tokenizer"], Path.read_bytes).decode()
        count_V = np.array(index["count"], np.int64)
        splits = {name: _read_split(folder, name, *row) for name, row in index["splits"].items()}
        names = tuple(index["desks"]), tuple(index["classes"])
        parts = [index["corpus"], index["tokenizer"], *(row[0] for row in index["splits"].values())]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged (%s) and is made again", folder, error)
        return None
    fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return Tokens(folder, fingerprint, *names, tokenizer.Tokenizer(coder), count_V, **splits)


def _read_split(folder: Path, split: str, tokens: str, documents: str) -> Split:
    def load(path):
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file}

    def map_ids(path):
        return np.load(path, mmap_mode="r", allow_pickle=False)

    ids = _checked(folder / f"{split}.npy", tokens, map_ids)
    of = _checked(folder / f"{split}-documents.npz", documents, load)
    labels = of["desk"].astype(np.int32), of["label"].astype(np.int32)
    return Split(ids, of["tokens"], of["bytes"], *labels, of["key"])


def _checked(path: Path, sha256: str, opened: Callable):
    if path.stat().st_size <= CHECKED and files.digest(path) != sha256:
        raise Mistake(f"{path.name} is not the file that was written")
    return opened(path)
