"""The corpus prepared on disk, step by step: packages, TFDS, tokeniser, tokens.

Each step is skipped when its result is there. One process prepares, others wait; every result
appears whole or not at all.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from moe.data import Data, documents, sources, tokenizer
from moe.data.documents import Document

CORPUS = Path("desk_corpus") / documents.VERSION  # where TFDS puts corpus.DeskCorpus
CHUNK = 256  # documents encoded at once


@dataclasses.dataclass(frozen=True)
class Split:
    """Documents of a split one after the other, each followed by the end token.

    Attributes:
      id: uint16, every token.
      tokens: int64, tokens of each document, the end included.
      bytes: int64, bytes of each document.
      desk, label: int32, labels of each document.
      keys: name of each document.
    """

    id: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    desk: np.ndarray
    label: np.ndarray
    keys: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A tokenised corpus and the folder that holds it."""

    folder: Path
    fingerprint: str
    desks: tuple[str, ...]
    classes: tuple[str, ...]
    tokenizer: tokenizer.Tokenizer
    train: Split
    held_out: Split


def prepare(data: Data, vocab_size: int, root: Path, given: list[Document] | None = None) -> Tokens:
    """Tokens of the pinned corpus, or of the given documents; uses and fills the cache in `root`.

    Raises SourceError (a ValueError) with one line when something cannot be had.
    """
    if given is not None:
        name = hashlib.sha256(repr([dataclasses.astuple(d) for d in given]).encode()).hexdigest()
        root = root / "given" / name[:16]
        root.mkdir(parents=True, exist_ok=True)
    with sources.lock(root):
        corpus = root / CORPUS
        fingerprint = _fingerprint(corpus)
        right = {fingerprint} - {None} if given is not None else {documents.FINGERPRINT}
        if fingerprint not in right:
            _prepare_corpus(root, given)
            fingerprint = _fingerprint(corpus)
        if given is None and fingerprint not in right:
            raise sources.SourceError(
                f"{corpus}: fingerprint={fingerprint}: must be {documents.FINGERPRINT}; "
                "the text was cut into documents in another way than that of this version"
            )
        name = f"{data.tokenizer}-{vocab_size}-{fingerprint[:16]}"
        folder = root / "tokens" / name
        tokens = _read(folder)
        if tokens is None:
            _prepare_tokens(data, vocab_size, corpus, fingerprint, folder)
            tokens = _read(folder)
        return tokens


def _fingerprint(corpus: Path) -> str | None:
    """Of the prepared corpus; None when it is not there or not whole."""
    try:
        return json.loads((corpus / "metadata.json").read_text())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _prepare_corpus(root: Path, given: list[Document] | None) -> None:
    if given is None:
        with _timed("packages"):
            archives = sources.fetch(root / "packages")
        with _timed("documents"):
            given = documents.read(archives)
    with _timed("TFDS"):
        from moe.data.corpus import DeskCorpus

        for broken in [root / CORPUS, *(root / CORPUS.parent).glob("incomplete.*")]:
            shutil.rmtree(broken, ignore_errors=True)
        silence = io.StringIO()  # TFDS prints and draws bars
        with (
            tempfile.TemporaryDirectory() as downloads,
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
        ):
            builder = DeskCorpus(documents=given, data_dir=root)
            builder.download_and_prepare(download_dir=downloads)


def _prepare_tokens(
    data: Data, vocab_size: int, corpus: Path, fingerprint: str, folder: Path
) -> None:
    """Trains the tokeniser on the training split, encodes both, writes the folder."""
    with _timed("read"):
        from moe.data.corpus import read

        desks, classes, splits = read(corpus, fingerprint)
    with _timed(f"tokeniser {data.tokenizer}-{vocab_size}"):
        texts = [row["text"] for row in splits["train"]]
        bpe = data.tokenizer == "bpe"
        coder = tokenizer.train(texts, vocab_size) if bpe else tokenizer.Tokenizer(tokenizer.BYTES)
    with _timed("tokens"), _appearing(folder) as temporary:
        sources.write(temporary / "tokenizer.json", coder.json.encode())
        index = {"corpus": fingerprint, "tokenizer": coder.fingerprint}
        index |= {"desks": desks, "classes": classes, "splits": {}}
        for split, rows in splits.items():
            encoded = list(_encode(coder, [row["text"] for row in rows]))
            buffer = io.BytesIO()
            np.save(buffer, np.concatenate(encoded))
            (temporary / f"{split}.npy").write_bytes(buffer.getvalue())
            index["splits"][split] = {
                "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
                "tokens": [len(ids) for ids in encoded],
                "bytes": [len(row["text"].encode()) for row in rows],
                "desk": [row["desk"] for row in rows],
                "label": [row["class"] for row in rows],
                "keys": [row["key"] for row in rows],
            }
        (temporary / "index.json").write_text(json.dumps(index))


def _encode(coder: tokenizer.Tokenizer, texts: list[str]) -> Iterator[np.ndarray]:
    for start in range(0, len(texts), CHUNK):
        for ids in coder.encode_all(texts[start : start + CHUNK]):
            yield np.append(ids, np.uint16(coder.end))


def _read(folder: Path) -> Tokens | None:
    """The cached tokens; None when they are not there or damaged."""
    try:
        index = json.loads((folder / "index.json").read_text())
        coder = _checked(folder / "tokenizer.json", index["tokenizer"]).decode()
        splits = {}
        for name, row in index["splits"].items():
            content = _checked(folder / f"{name}.npy", row["sha256"])
            splits[name] = _split(np.load(io.BytesIO(content)), row)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        logging.warning("%s is damaged (%s) and is made again", folder, error)
        return None
    parts = [index["corpus"], index["tokenizer"], *(r["sha256"] for r in index["splits"].values())]
    fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    names = tuple(index["desks"]), tuple(index["classes"])
    return Tokens(folder, fingerprint, *names, tokenizer.Tokenizer(coder), **splits)


def _checked(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path.name} is not the file that was written")
    return content


def _split(ids: np.ndarray, row: dict) -> Split:
    tokens, size = np.array(row["tokens"], np.int64), np.array(row["bytes"], np.int64)
    desk, label = np.array(row["desk"], np.int32), np.array(row["label"], np.int32)
    return Split(ids, tokens, size, desk, label, tuple(row["keys"]))


@contextlib.contextmanager
def _timed(step: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    logging.info("data: %s, %.1f s", step, time.monotonic() - start)


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes this name when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as temporary:
        whole = Path(temporary) / folder.name
        whole.mkdir()
        yield whole
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(whole, folder)
