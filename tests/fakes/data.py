"""A data set of three desks made from a seed, with the interface of moe.data.loader.Dataset."""

import numpy as np

from moe.data.counts import Corpus
from moe.data.loader import Batch
from moe.data.tokenizer import BYTES, Tokenizer


class SyntheticDataset:
    """Desk y's text steps through the vocabulary by y + 1, with one token in four at random."""

    desks = ("ones", "twos", "threes")
    classes = desks
    fingerprint = "synthetic"
    one_pass = 2**40  # its text has no end
    tokenizer = Tokenizer(BYTES)
    tokenizer_fingerprint = tokenizer.fingerprint

    def __init__(self, vocab_size=32, length=16, windows=5):
        self.vocab_size, self.length, self.windows = vocab_size, length, windows
        self.byte_V = np.full(vocab_size, 2, np.int64)
        self.count_V = np.arange(vocab_size, 0, -1, dtype=np.int64) ** 2
        token_S = np.random.default_rng(3).permutation(np.repeat(np.arange(vocab_size), 40))
        self.corpus = Corpus(self.count_V, token_S)

    def _rows(self, generator, desk_B):
        B, V = len(desk_B), self.vocab_size
        id_BL = np.empty((B, self.length + 1), np.int32)
        id_BL[:, 0] = generator.integers(V, size=B)
        for i in range(self.length):
            step = np.where(
                generator.random(B) < 0.25, generator.integers(V, size=B), id_BL[:, i] + desk_B + 1
            )
            id_BL[:, i + 1] = step % V
        label_BL = np.repeat(desk_B[:, None], self.length, axis=1).astype(np.int32)
        return Batch(id_BL[:, :-1], id_BL[:, 1:], label_BL, label_BL, label_BL)

    def batch(self, seed, step, batch_size):
        generator = np.random.default_rng([seed, step])
        return self._rows(generator, generator.integers(3, size=batch_size))

    def stream(self, seed, start_step, batch_size, rows=None):
        step = start_step
        while True:
            batch = self.batch(seed, step, batch_size)
            yield batch if rows is None else Batch(*(a[rows] for a in batch))
            step += 1

    def held_out(self, desk):
        y = self.desks.index(desk)
        return self._rows(np.random.default_rng([7, y]), np.full(self.windows, y))

    def document(self, desk):
        """Each window is a document."""
        y = self.desks.index(desk)
        number_W = y * self.windows + np.arange(self.windows, dtype=np.int32)
        return np.repeat(number_W[:, None], self.length, axis=1)

    def label(self, id_BL, desk_BL, class_BL):
        return desk_BL

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16) % (self.vocab_size - 1)

    def decode(self, ids):
        return "".join(chr(97 + int(i)) for i in ids)
