"""Tokenised documents on disk: written document by document, read as memory maps."""

import array
import dataclasses
import functools
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from moe import files
from moe.data import overlap, tokenizer
from moe.data.sources import contents
from moe.data.sources.contract import SPLITS, Rows, SourceError, Text
from moe.registry import Mistake

CHECKED = 2**30  # bytes: a longer file is hashed only when its size, inode or times are new


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
    """A tokenised corpus and the folder that holds it; count_V is of the training tokens.

    `alike` says what of the held-out text stands in that of training.
    """

    folder: Path
    fingerprint: str
    desks: tuple[str, ...]
    classes: tuple[str, ...]
    tokenizer: tokenizer.Tokenizer
    count_V: np.ndarray
    alike: overlap.Alike
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
    held_out, left_out, digests = set(), [], {}
    count_V = np.zeros(0, np.int64)  # of the split that comes last, which is training's
    for split in reversed(SPLITS):  # training leaves out what is held out
        chunks = (c for rows in text.splits[split] for c in limited(rows, limit))
        chunks = _apart(chunks, held_out, left_out if split == "train" else None)
        count_V = _write_split(folder, split, chunks, coder)
        names = [f"{split}.npy", f"{split}-documents.npz"]
        digests[split] = [files.digest(folder / name) for name in names]
    if not count_V.any():
        raise SourceError(f"corpus: all {len(left_out)} training documents are held out too")
    index: dict[str, Any] = {"corpus": corpus, "tokenizer": coder.fingerprint}
    index |= {"desks": text.desks, "classes": text.classes, "count": count_V.tolist()}
    index["splits"] = {split: digests[split] for split in SPLITS}
    index["alike"] = dataclasses.asdict(_alike(folder, len(left_out), index))
    (folder / "index.json").write_text(files.sealed(index))


def _apart(chunks: Iterable[list[dict]], held_out: set[bytes], left_out: list | None):
    """The chunks as they are, their texts noted in `held_out`; or those of training without them.

    Keys of the rows that are left out are appended to `left_out`.
    """
    for chunk in chunks:
        digest = [hashlib.sha256(row["text"].encode()).digest() for row in chunk]
        if left_out is None:
            held_out.update(digest)
        else:
            rows = list(zip(chunk, digest, strict=True))
            left_out += [row["key"] for row, own in rows if own in held_out]
            chunk = [row for row, own in rows if own not in held_out]
        if chunk:
            yield chunk


def _alike(folder: Path, left_out: int, index: dict) -> overlap.Alike:
    """What the files of both splits have in common."""
    train, held_out = (_read_split(folder, split, *index["splits"][split]) for split in SPLITS)
    run = max(1, round(overlap.RUN_BYTES * len(held_out.id) / max(1, held_out.bytes.sum())))
    return overlap.Alike(
        left_out, *overlap.near(train.id, held_out.id, held_out.tokens, run), run=run
    )


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
        index = files.unsealed((folder / "index.json").read_text("utf-8"))
        coder = _checked(folder / "tokenizer.json", index["tokenizer"], Path.read_bytes).decode()
        alike = overlap.Alike(**index["alike"])
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
    return Tokens(folder, fingerprint, *names, tokenizer.Tokenizer(coder), count_V, alike, **splits)


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
    """What `opened` makes of a file that has this hash; raises Mistake for another one."""
    found = path.stat()
    if found.st_size <= CHECKED:
        digest = files.digest(path)
    else:
        memory = path.with_name(f"{path.stem}-hashed.json")
        (digest,) = contents.digests({str(path): contents.state(found)}, memory)
    if digest != sha256:
        raise Mistake(f"{path.name} is not the file that was written")
    return opened(path)
