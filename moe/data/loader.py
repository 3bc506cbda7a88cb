"""Batches as a function of (seed, step), through grain's random access."""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from moe.data import Data, labels, sources
from moe.data.documents import Document
from moe.data.tokens import Split, Tokens, prepare

THREADS = 2  # that read ahead of the consumer
AHEAD = 16  # batches


class Batch(NamedTuple):
    """Windows of text, int32; desk and class are those of the input token's document.

    label_BL is the one of several labels that `data.label` chose for routers to read.
    """

    id_BL: np.ndarray
    target_BL: np.ndarray  # the next token
    desk_BL: np.ndarray
    class_BL: np.ndarray
    label_BL: np.ndarray


def load(
    data: Data,
    vocab_size: int,
    data_dir: str | os.PathLike | None = None,
    given: list[Document] | None = None,
) -> "Dataset":
    """The corpus, prepared on first use in data_dir, else $MOE_DATA_DIR, else ~/.cache/moe.

    `given` takes the place of the pinned packages. Raises ValueError with one line.
    """
    data.check("data", vocab_size)
    return Dataset(prepare(data, vocab_size, sources.root(data_dir), given), data)


class Dataset:
    """Windows of L + 1 tokens of the training documents, and fixed held-out windows of each desk.

    Training documents follow each other in a fixed, shuffled order; window w begins at token
    w * L, so that each token is a target once in an epoch. An epoch's order depends on the seed
    and on the number of the epoch.

    Attributes:
      desks, classes: names; a finer class is spelled desk/name.
      vocab_size: number of ids; the last one ends a document.
      fingerprint: SHA-256 of corpus, split, tokeniser and tokens.
      tokenizer_fingerprint: SHA-256 of the tokeniser alone.
      count_V: int64, how often each id stands in the training tokens.
      byte_V: int64, bytes of each id's text; 0 for the end of a document.
      windows: number of training windows, an epoch.
      held_out_rows: desk -> number of held-out windows, at most data.held_out_windows.
      tokens: the documents behind it.
    """

    def __init__(self, tokens: Tokens, data: Data):
        self.tokens, self.data = tokens, data
        self.desks, self.classes = tokens.desks, tokens.classes
        self.fingerprint = tokens.fingerprint
        self.tokenizer_fingerprint = tokens.tokenizer.fingerprint
        self.vocab_size = tokens.tokenizer.vocab_size
        self.byte_V = tokens.tokenizer.byte_V
        self.count_V = np.bincount(tokens.train.id, minlength=self.vocab_size)
        texts = [self.decode([i]) for i in range(self.vocab_size)] if data.label == "word" else []
        self._label = data.label, labels.of_ids(data.label, self.count_V, texts)
        self._document = _document_of(tokens.train)
        self.windows = (len(tokens.train.id) - 1) // data.sequence_length
        if self.windows < 1:
            raise ValueError(
                f"data.sequence_length={data.sequence_length}: longer than the training text, "
                f"{len(tokens.train.id)} tokens"
            )
        self._batches = {}
        self._held_out = {desk: self._held_out_of(desk) for desk in self.desks}
        self.held_out_rows = {desk: len(b.id_BL) for desk, b in self._held_out.items()}

    @property
    def corpus(self):
        """What routers may learn of the training text, a `moe.routing.Corpus`."""
        from moe.routing import Corpus  # needs JAX, which reading data does not

        return Corpus(self.count_V, self.tokens.train.id)

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        """Batch number `step` of an endless run: the same for the same arguments, any order."""
        if step < 0:
            raise ValueError(f"step={step}: must be >= 0")
        return self._plan(seed, batch_size)[step]

    def stream(self, seed: int, start_step: int, batch_size: int) -> Iterator[Batch]:
        """batch(seed, start_step, ...), batch(seed, start_step + 1, ...), ..., read ahead."""
        import grain

        if start_step < 0:
            raise ValueError(f"step={start_step}: must be >= 0")
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
        return iter(self._plan(seed, batch_size)[start_step:].to_iter_dataset(options))

    def held_out(self, desk: str) -> Batch:
        """Windows of the desk's held-out documents, spread evenly over them; always the same."""
        if desk not in self._held_out:
            raise ValueError(f"desk={desk}: unknown; valid names: {', '.join(self.desks)}")
        return self._held_out[desk]

    def encode(self, text: str) -> np.ndarray:
        """Ids of the text, uint16."""
        return self.tokens.tokenizer.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; ends of documents are left out."""
        return self.tokens.tokenizer.decode(ids)

    def _plan(self, seed: int, batch_size: int):
        """grain.MapDataset whose element `step` is the batch of that step."""
        if (seed, batch_size) not in self._batches:
            import grain

            if not 0 <= seed < 2**32:
                raise ValueError(f"seed={seed}: must be in [0, 2**32)")
            if batch_size < 1:
                raise ValueError(f"batch_size={batch_size}: must be >= 1")
            order = grain.MapDataset.range(self.windows).seed(seed).shuffle().repeat(None)
            rows = order.batch(batch_size, batch_fn=np.array)
            self._batches[seed, batch_size] = rows.map(self._gather)
        return self._batches[seed, batch_size]

    def _gather(self, window_B: np.ndarray) -> Batch:
        length = self.data.sequence_length
        return _cut(self.tokens.train, self._document, window_B, length, self._label)

    def _held_out_of(self, desk: str) -> Batch:
        """Windows over the desk's held-out documents, joined like those of training."""
        split, wanted = self.tokens.held_out, self.desks.index(desk)
        of_desk = _of_desk(split, wanted)
        total = (len(of_desk.id) - 1) // self.data.sequence_length
        if total < 1:
            raise ValueError(
                f"data.sequence_length={self.data.sequence_length}: longer than the held-out "
                f"text of desk {desk}, {len(of_desk.id)} tokens"
            )
        count = min(total, self.data.held_out_windows)
        window_W = np.arange(count) * total // count
        length = self.data.sequence_length
        return _cut(of_desk, _document_of(of_desk), window_W, length, self._label)


def _document_of(split: Split) -> np.ndarray:
    """Index of the document of each token."""
    return np.repeat(np.arange(len(split.tokens), dtype=np.uint32), split.tokens)


def _of_desk(split: Split, desk: int) -> Split:
    """The documents of one desk alone."""
    chosen = split.desk == desk
    keys = tuple(key for key, keep in zip(split.keys, chosen, strict=True) if keep)
    ids = split.id[np.repeat(chosen, split.tokens)]
    labels = split.desk[chosen], split.label[chosen]
    return Split(ids, split.tokens[chosen], split.bytes[chosen], *labels, keys)


def _cut(
    split: Split,
    document: np.ndarray,
    window_B: np.ndarray,
    length: int,
    label: tuple[str, np.ndarray | None],
) -> Batch:
    """Windows of length + 1 tokens, window w from token w * length."""
    position = window_B[:, None] * length + np.arange(length + 1)
    token = split.id[position].astype(np.int32)
    owner = document[position[:, :-1]]
    id_BL, desk_BL, class_BL = token[:, :-1], split.desk[owner], split.label[owner]
    name, label_V = label
    label_BL = {"desk": desk_BL, "class": class_BL}.get(name)
    if label_BL is None:
        label_BL = label_V[id_BL]
    return Batch(id_BL, token[:, 1:], desk_BL, class_BL, label_BL)
