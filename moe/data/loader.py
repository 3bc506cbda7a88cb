"""Batches as a function of (seed, step), through grain's random access."""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from moe.data import labels
from moe.data.data import SEED, Data
from moe.data.prepare import prepare, root
from moe.data.sources.documents import Document
from moe.data.token_files import Split, Tokens
from moe.fields import check_fields, check_value
from moe.registry import Mistake

THREADS = 2  # that read ahead of the consumer
AHEAD = 16  # batches
SAMPLE = 2**25  # tokens that n-grams and router tables are counted on


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
    """data.source, prepared on first use in data_dir, else $MOE_DATA_DIR, else ~/.cache/moe.

    `given` takes the place of the source. Raises Mistake with one line.
    """
    check_fields(data, "data")
    data.check("data", vocab_size)
    return Dataset(prepare(data, vocab_size, root(data_dir), given), data)


class Dataset:
    """Windows of L + 1 tokens of the training documents, and fixed held-out windows of each desk.

    Training documents follow each other in a fixed, shuffled order; window w begins at token
    w * L, so that each token is a target once in an epoch. An epoch's order depends on the seed
    and on the number of the epoch.

    Attributes:
      desks, classes: names; a finer class is spelled desk/name.
      vocab_size: number of ids; the last one ends a document.
      fingerprint: SHA-256 of corpus, split, tokeniser and tokens.
      tokenizer: text to ids and back; its json rebuilds it without the cache.
      count_V: int64, how often each id stands in the training tokens.
      byte_V: int64, bytes of each id's text; 0 for the end of a document.
      windows: number of training windows, an epoch.
      one_pass: tokens of an epoch.
      held_out_rows: desk -> number of held-out windows, at most data.held_out_windows.
      tokens: the documents behind it.
    """

    def __init__(self, tokens: Tokens, data: Data):
        self.tokens, self.data = tokens, data
        self.desks, self.classes = tokens.desks, tokens.classes
        self.fingerprint = tokens.fingerprint
        self.tokenizer = tokens.tokenizer
        self.vocab_size = tokens.tokenizer.vocab_size
        self.byte_V = tokens.tokenizer.byte_V
        self.count_V = tokens.count_V
        texts = [self.decode([i]) for i in range(self.vocab_size)] if data.label == "word" else []
        self._label = data.label, labels.of_ids(data.label, self.count_V, texts)
        self.windows = (len(tokens.train.id) - 1) // data.sequence_length
        if self.windows < 1:
            raise Mistake(
                f"data.sequence_length={data.sequence_length}: longer than the training text, "
                f"{len(tokens.train.id)} tokens"
            )
        self.one_pass = self.windows * data.sequence_length
        self._batches = {}
        self._held_out = {desk: self._held_out_of(desk) for desk in self.desks}
        self.held_out_rows = {desk: len(b.id_BL) for desk, b in self._held_out.items()}

    @property
    def corpus(self):
        """What routers may learn of the training text, a `moe.data.counts.Corpus`."""
        from moe.data.counts import Corpus  # needs JAX, which reading data does not

        return Corpus(self.count_V, self.sample_S)

    @property
    def sample_S(self) -> np.ndarray:
        """The training text; of one longer than SAMPLE tokens, 512 stretches spread over it."""
        return spread(self.tokens.train.id, SAMPLE, 512)

    @property
    def tokenizer_fingerprint(self) -> str:
        """SHA-256 of what the tokeniser is made of."""
        return self.tokenizer.fingerprint

    def batch(self, seed: int, step: int, batch_size: int, rows: np.ndarray | None = None) -> Batch:
        """Batch number `step` of an endless run: the same for the same arguments, any order.

        Args:
          batch_size: rows over all processes.
          rows: only these rows of the batch, those of a process; None is all of them.
        """
        if step < 0:
            raise Mistake(f"step={step}: must be >= 0")
        return self._plan(seed, batch_size, rows)[step]

    def stream(
        self, seed: int, start_step: int, batch_size: int, rows: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """batch(seed, start_step, ...), batch(seed, start_step + 1, ...), ..., read ahead."""
        import grain

        if start_step < 0:
            raise Mistake(f"step={start_step}: must be >= 0")
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
        return iter(self._plan(seed, batch_size, rows)[start_step:].to_iter_dataset(options))

    def held_out(self, desk: str) -> Batch:
        """Windows of the desk's held-out documents, spread evenly over them; always the same."""
        if desk not in self._held_out:
            raise Mistake(f"desk={desk}: unknown; valid names: {', '.join(self.desks)}")
        return self._held_out[desk]

    def document(self, desk: str) -> np.ndarray:
        """Which of all held-out documents each token of `held_out(desk)` is of (int32, BL)."""
        split, window_W = self._held_out_place(desk)
        length = self.data.sequence_length
        owner = _owner(split, window_W[:, None] * length + np.arange(length))
        number = np.flatnonzero(self.tokens.held_out.desk == self.desks.index(desk))
        return number[owner].astype(np.int32)

    def label(self, id_BL: np.ndarray, desk_BL: np.ndarray, class_BL: np.ndarray) -> np.ndarray:
        """What `Batch.label_BL` says of tokens of any text."""
        return _labels(self._label, id_BL, desk_BL, class_BL)

    def encode(self, text: str) -> np.ndarray:
        """Ids of the text, uint16."""
        return self.tokens.tokenizer.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; ends of documents are left out."""
        return self.tokens.tokenizer.decode(ids)

    def _plan(self, seed: int, batch_size: int, rows: np.ndarray | None = None):
        """grain.MapDataset whose element `step` is the batch of that step, or these rows of it."""
        key = seed, batch_size, None if rows is None else rows.tobytes()
        if key not in self._batches:
            import grain

            check_value(SEED, seed, "seed")
            if batch_size < 1:
                raise Mistake(f"batch_size={batch_size}: must be >= 1")
            order = grain.MapDataset.range(self.windows).seed(seed).shuffle().repeat(None)
            # There is no remainder; grain would count it in floats, which overflow at batch 1.
            windows = order.batch(batch_size, drop_remainder=True, batch_fn=np.array)
            windows = windows if rows is None else windows.map(lambda window_B: window_B[rows])
            self._batches[key] = windows.map(self._gather)
        return self._batches[key]

    def _gather(self, window_B: np.ndarray) -> Batch:
        return _cut(self.tokens.train, window_B, self.data.sequence_length, self._label)

    def _held_out_of(self, desk: str) -> Batch:
        """Windows over the desk's held-out documents, joined like those of training."""
        split, window_W = self._held_out_place(desk)
        return _cut(split, window_W, self.data.sequence_length, self._label)

    def _held_out_place(self, desk: str) -> tuple[Split, np.ndarray]:
        """The desk's held-out documents, and which of their windows are read."""
        of_desk = _of_desk(self.tokens.held_out, self.desks.index(desk))
        total = (len(of_desk.id) - 1) // self.data.sequence_length
        if total < 1:
            raise Mistake(
                f"data.sequence_length={self.data.sequence_length}: longer than the held-out "
                f"text of desk {desk}, {len(of_desk.id)} tokens"
            )
        count = min(total, self.data.held_out_windows)
        return of_desk, np.arange(count) * total // count


def spread(id_S: np.ndarray, limit: int, stretches: int) -> np.ndarray:
    """All ids, or about `limit` of them in stretches at equal distances."""
    if len(id_S) <= limit:
        return id_S
    size = limit // stretches
    starts = np.linspace(0, len(id_S) - size, stretches).astype(np.int64)
    return np.concatenate([id_S[start : start + size] for start in starts])


def _of_desk(split: Split, desk: int) -> Split:
    """The documents of one desk alone."""
    chosen = split.desk == desk
    ids = split.id[np.repeat(chosen, split.tokens)]
    labels = split.desk[chosen], split.label[chosen]
    return Split(ids, split.tokens[chosen], split.bytes[chosen], *labels, split.key[chosen])


def _cut(
    split: Split,
    window_B: np.ndarray,
    length: int,
    label: tuple[str, np.ndarray | None],
) -> Batch:
    """Windows of length + 1 tokens, window w from token w * length."""
    position = window_B[:, None] * length + np.arange(length + 1)
    token = split.id[position].astype(np.int32)
    owner = _owner(split, position[:, :-1])
    id_BL, desk_BL, class_BL = token[:, :-1], split.desk[owner], split.label[owner]
    label_BL = _labels(label, id_BL, desk_BL, class_BL)
    return Batch(id_BL, token[:, 1:], desk_BL, class_BL, label_BL)


def _owner(split: Split, position: np.ndarray) -> np.ndarray:
    """The document at each place of a split."""
    return np.searchsorted(split.ends, position, side="right")


def _labels(
    label: tuple[str, np.ndarray | None],
    id_BL: np.ndarray,
    desk_BL: np.ndarray,
    class_BL: np.ndarray,
) -> np.ndarray:
    """The label of that name: of the id where there is one for each, else of the document."""
    name, label_V = label
    if label_V is not None:
        return label_V[id_BL]
    return desk_BL if name == "desk" else class_BL
