"""How much of the held-out text stands in the training text as well: equal and near-equal ones.

Equal documents are left out of training. Near-equal is a document at least half of whose runs of
tokens stand in training text word for word, as 13 words do in GPT-3 (arXiv 2005.14165, appendix C).
"""

import dataclasses

import numpy as np

RUN_BYTES = 80  # of a run, on the average: about 13 words of English
MOST = 2**22  # held-out tokens that are looked at
CHUNK = 2**20  # training tokens at once
_BITS = 24  # of a hash, by which most are known not to be wanted
_M, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1


@dataclasses.dataclass(frozen=True)
class Alike:
    """What was found.

    Attributes:
      left_out: training documents whose text is held out as well, and which are not trained on.
      near: held-out documents that are near-equal to training text.
      seen: held-out documents that were looked at, each of a run or longer.
      run: tokens of a run.
    """

    left_out: int
    near: int
    seen: int
    run: int

    def line(self, source: str) -> str:
        """One line; empty where nothing is alike."""
        said = []
        if self.left_out:
            said.append(f"{self.left_out:,} training documents are held out too, and left out")
        if self.near:
            said.append(
                f"{self.near:,} of {self.seen:,} held-out documents are near-equal to training "
                f"text (half of their runs of {self.run} tokens stand there)"
            )
        return f"data.source={source}: {'; '.join(said)}" if said else ""


def near(train: np.ndarray, held_out: np.ndarray, tokens_D: np.ndarray, run: int) -> tuple:
    """(near-equal documents, documents looked at), of documents that end with an end token.

    Args:
      train, held_out: uint16, tokens of the splits.
      tokens_D: tokens of each held-out document; of more than MOST tokens every nth document.
    """
    start_D = np.cumsum(tokens_D) - tokens_D
    step = -(-int(tokens_D.sum()) // MOST) or 1
    chosen = [n for n in range(0, len(tokens_D), step) if tokens_D[n] > run]
    if not chosen:
        return 0, 0
    hashes = [_hashes(held_out[start_D[n] : start_D[n] + tokens_D[n] - 1], run) for n in chosen]
    wanted, place = np.unique(np.concatenate(hashes), return_inverse=True)
    found = _found(train, wanted, run)[place]
    ends = np.cumsum([len(rows) for rows in hashes])
    share = [part.mean() for part in np.split(found, ends[:-1])]
    return int(np.sum(np.array(share) >= 0.5)), len(chosen)


def _found(train: np.ndarray, wanted: np.ndarray, run: int) -> np.ndarray:
    """Which of the sorted hashes are those of a run of the training text."""
    maybe, found = np.zeros(2**_BITS, bool), np.zeros(len(wanted), bool)
    maybe[wanted >> np.uint64(64 - _BITS)] = True
    for start in range(0, len(train) - run + 1, CHUNK):
        hashes = _hashes(train[start : start + CHUNK + run - 1], run)
        hashes = hashes[maybe[hashes >> np.uint64(64 - _BITS)]]
        at = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        found[at[wanted[at] == hashes]] = True
    return found


def _hashes(id_T: np.ndarray, run: int) -> np.ndarray:
    """A hash of the run that starts at each token: sum of x[t + i] M^i modulo 2^64, by doubling."""
    block = (id_T.astype(np.uint64) + np.uint64(1)) * np.uint64(_M)
    block ^= block >> np.uint64(29)
    total, length, size = np.zeros(len(block), np.uint64), 0, 1
    while True:
        if run & size:
            more = block[length : length + len(total)]
            total = total[: len(more)] + np.uint64(pow(_M, length, _MASK + 1)) * more
            length += size
        if 2 * size > run:
            break
        block = block[:-size] + np.uint64(pow(_M, size, _MASK + 1)) * block[size:]
        size *= 2
    total = total[: len(id_T) - run + 1] * np.uint64(_M)
    return total ^ (total >> np.uint64(32)) ^ (total << np.uint64(31))
