"""Text prepared on disk, step by step: packages or files, TFDS, tokeniser, tokens.

Each step is skipped when its result is there. One process prepares, others wait; every result
appears whole or not at all.
"""

import contextlib
import dataclasses
import hashlib
import io
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from moe import files
from moe.data import token_files, tokenizer
from moe.data.data import Data
from moe.data.sources import catalogue, desks, folder
from moe.data.sources.contract import Folder, Packages, SourceError, Text, Tfds, room
from moe.data.sources.documents import Document
from moe.data.sources.pinned import PINNED
from moe.files import content, hold, place, remove


def root(data_dir: str | os.PathLike | None = None) -> Path:
    """The folder that holds everything, made where it is not; see `_named`."""
    path = _named(data_dir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise SourceError(f"data_dir={path}: cannot be written: {error.strerror}") from error
    return path.resolve()


def _named(data_dir: str | os.PathLike | None = None) -> Path:
    """The argument, else $MOE_DATA_DIR, else ~/.cache/moe; raises Mistake for what is no path."""
    named = os.fspath(data_dir or os.environ.get("MOE_DATA_DIR") or "~/.cache/moe")
    return place(named, f"data_dir={named}")


CORPUS = Path("desk_corpus") / desks.VERSION  # where TFDS puts corpus.DeskCorpus
FORMAT = 3  # of the files that `store` writes
TOKENIZER_BYTES = 2**28  # of text that a tokeniser is trained on; of more text, a sample


def prepare(
    data: Data, vocab_size: int, root: Path, given: list[Document] | None = None
) -> token_files.Tokens:
    """Tokens of data.source, or of the given documents; uses and fills the cache in `root`.

    Raises SourceError (a Mistake) with one line when something cannot be had.
    """
    with room(root):
        tokens = _of_source(data, vocab_size, root, given)
        if given is None:
            _note(root, data, vocab_size, len(tokens.train.id))
        return tokens


def _of_source(
    data: Data, vocab_size: int, root: Path, given: list[Document] | None
) -> token_files.Tokens:
    if given is not None:
        name = hashlib.sha256(repr([dataclasses.astuple(d) for d in given]).encode()).hexdigest()
        return _prepared(data, vocab_size, _made(root / "given" / name[:16]), lambda: given)
    match data.text:
        case Tfds(names):
            sets = [catalogue.find(name) for name in names]
            with hold(root, math.inf):
                key, fingerprint = catalogue.key(sets, root / "sets"), catalogue.fingerprint(sets)
                source = _Source(key, fingerprint, lambda: catalogue.read(sets))
                return _tokens(data, vocab_size, root, source)
        case Folder(path):
            place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
            found = folder.scan(path, root / "folders" / f"{place}.json")
            root = _made(root / "folders" / folder.fingerprint(found)[:16])
            return _prepared(data, vocab_size, root, lambda: folder.documents(path, found))
        case Packages(name):
            corpus, read = PINNED[name], _pinned(name, root / "packages")
            root = root if name == "packages" else _made(root / name)
            return _prepared(data, vocab_size, root, read, corpus.fingerprint)


def one_pass(data: Data, vocab_size: int) -> int | None:
    """Tokens of the training text when it was prepared last; None where that is not known.

    Reads and makes no text, so it may be old news of a source that changed since.
    """
    folder = _named()
    try:
        return files.unsealed(_noted(folder, data, vocab_size).read_text("utf-8"))["tokens"]
    except (OSError, ValueError):
        if not isinstance(data.text, Packages) or data.max_documents is not None:
            return None
        return PINNED[data.text.name].tokens.get((data.tokenizer, vocab_size))


def _noted(root: Path, data: Data, vocab_size: int) -> Path:
    what = repr((data.source, data.max_documents, data.tokenizer, vocab_size))
    return root / "passes" / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"


def _note(root: Path, data: Data, vocab_size: int, tokens: int) -> None:
    path, text = _noted(root, data, vocab_size), files.sealed({"tokens": tokens})
    if not path.is_file() or path.read_bytes() != text.encode():
        files.write(_made(path.parent) / path.name, text)


def _made(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    return root


def _pinned(name: str, folder: Path) -> Callable[[], list[Document]]:
    def read():
        with _timed("packages"):
            archives = PINNED[name].fetch(folder)
        return PINNED[name].documents(archives)

    return read


def _prepared(
    data: Data,
    vocab_size: int,
    root: Path,
    read: Callable[[], Sequence],
    pinned: str | None = None,
) -> token_files.Tokens:
    """Tokens of the documents that `read` gives, through a TFDS corpus in `root`."""
    with hold(root, math.inf):
        corpus = root / CORPUS
        fingerprint = _fingerprint(corpus)
        if fingerprint is None or pinned not in (None, fingerprint):
            with _timed("documents"):
                found = read()
            _prepare_corpus(root, found)
            fingerprint = _fingerprint(corpus) or ""
        if pinned not in (None, fingerprint):
            raise SourceError(
                f"{corpus}: fingerprint={fingerprint}: must be {pinned}; "
                "the text was cut into documents in another way than that of this version"
            )

        def text():
            from moe.data.sources.corpus import read

            return read(corpus, fingerprint)

        return _tokens(data, vocab_size, root, _Source(fingerprint, fingerprint, text))


def _fingerprint(corpus: Path) -> str | None:
    """Of the prepared corpus; None when it is not there or not whole."""
    try:
        return content(corpus / "metadata.json")["fingerprint"]
    except (ValueError, KeyError, TypeError):
        return None


def _prepare_corpus(root: Path, found: Sequence) -> None:
    with _timed("TFDS"):
        from moe.data.sources.corpus import DeskCorpus

        for broken in [root / CORPUS, *(root / CORPUS.parent).glob("incomplete.*")]:
            remove(broken)
        silence = io.StringIO()  # TFDS prints and draws bars
        with (
            tempfile.TemporaryDirectory() as downloads,
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
        ):
            builder = DeskCorpus(documents=found, data_dir=root)
            builder.download_and_prepare(download_dir=downloads)


@dataclasses.dataclass(frozen=True)
class _Source:
    """The key of its content, its fingerprint, and what gives its text."""

    key: str
    fingerprint: str
    read: Callable[[], Text]


def _tokens(data: Data, vocab_size: int, root: Path, source: _Source) -> token_files.Tokens:
    """Tokens from the cache, else of the text of the source."""
    limit = data.max_documents
    few = "" if limit is None else f"-{limit}"
    name = f"{FORMAT}-{data.tokenizer}-{vocab_size}{few}-{source.key[:16]}"
    kept = root / "tokens" / name
    tokens = token_files.read(kept)
    if tokens is None:
        with _timed("read"):
            text = source.read()
        with _timed(f"tokeniser {data.tokenizer}-{vocab_size}"):
            coder = tokenizer.Tokenizer(tokenizer.BYTES)
            if data.tokenizer == "bpe":
                coder = tokenizer.train(_sample(text.splits["train"], limit), vocab_size)
        with _timed("tokens"), _appearing(kept) as temporary:
            token_files.write(temporary, source.fingerprint, text, coder, limit)
        tokens = token_files.read(kept)
        if tokens is not None and (said := tokens.alike.line(data.source)):
            logging.warning("%s", said)
    if tokens is None:
        raise SourceError(f"{kept}: is damaged as soon as it was written; check the disk")
    return tokens


def _sample(parts: Sequence, limit: int | None) -> Iterator[str]:
    """Texts of all documents, or chunks of them in a fixed random order up to TOKENIZER_BYTES."""
    chunks = []
    for rows in parts:
        count = len(rows.order) if limit is None else min(limit, len(rows.order))
        rows = dataclasses.replace(rows, order=rows.order[:count])
        chunks += [(rows, number) for number in range(rows.chunks())]
    size = 0
    for i in np.random.default_rng(0).permutation(len(chunks)):
        rows, number = chunks[i]
        for row in rows.chunk(number):
            size += len(row["text"].encode())
            yield row["text"]
        if size >= TOKENIZER_BYTES:
            return


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
        remove(folder)
        os.rename(whole, folder)
