"""Count baselines on the held-out tokens: unigram, and interpolated Kneser-Ney 5-gram.

Kneser and Ney 1995; interpolated form and one discount per order as in Chen and Goodman 1999,
section 3. The context ends at the first token of the window, as the model's does.
With a shorter context the order is lower, and the highest order in use has raw counts.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from moe import files
from moe.data.sources.contract import room
from moe.registry import Mistake

if TYPE_CHECKING:
    from moe.data.loader import Dataset

ORDER = 5


@dataclass(frozen=True)
class Order:
    """N-grams of one length n, indexed by rank.

    Attributes:
      key: int64, sorted: rank of the (n-1)-gram before the last token, times V, plus that token.
      count: how often each stands in the text.
      variety: number of different tokens before each, its count in lower-order distributions;
        at the highest order, which is never a lower one, the count.
    """

    key: np.ndarray
    count: np.ndarray
    variety: np.ndarray


class KneserNey:
    """P(token | up to order - 1 tokens before it), trained on one long text.

    P_n(w | c) = max(count(c w) - d_n, 0) / count(c *)  +  d_n types(c *) / count(c *) * P_n-1
    d_n is n1 / (n1 + 2 n2), or 1/2 where no n-gram stands once, so that no token has P = 0.
    Below the highest order `count` is the number of different tokens before the n-gram. P_0 is
    1 / V, and a context never seen leaves P_n-1. Memory: about 100 bytes per token of text.
    """

    def __init__(self, id_T: np.ndarray, vocab_size: int, order: int = ORDER):
        """Raises Mistake when ranks times vocab_size do not fit 63 bits."""
        if len(id_T) * vocab_size >= 2**63:
            raise Mistake(
                f"model.vocab_size={vocab_size}: {len(id_T)} tokens of text times it must be "
                "below 2**63 for the n-gram baseline"
            )
        self.vocab_size = vocab_size
        self.orders = _orders(id_T.astype(np.int64), vocab_size, order)
        self._raw = [_Interpolation(o, o.count, vocab_size) for o in self.orders]
        self._lower = [_Interpolation(o, o.variety, vocab_size) for o in self.orders]

    def probability(self, id_BL: np.ndarray, target_BL: np.ndarray) -> np.ndarray:
        """P of each target, float64 [B, L]; its context is the ids of its row up to its place."""
        id_BL, target_BL = id_BL.astype(np.int64), target_BL.astype(np.int64)
        context_BL = [np.zeros_like(id_BL)]  # of n tokens: rank among the n-grams; -1 is unseen
        for n, order in enumerate(self.orders[:-1], start=1):
            edge = 0 if n == 1 else -1
            before = np.pad(context_BL[-1][:, :-1], ((0, 0), (1, 0)), constant_values=edge)
            context_BL.append(self._rank(order, before, id_BL))
        highest = np.minimum(np.arange(id_BL.shape[1]) + 2, len(self.orders))
        p_BL = np.full(id_BL.shape, 1 / self.vocab_size)
        for n, order in enumerate(self.orders, start=1):
            context, rank = context_BL[n - 1], self._rank(order, context_BL[n - 1], target_BL)
            raw = self._raw[n - 1].mix(context, rank, p_BL)
            lower = self._lower[n - 1].mix(context, rank, p_BL)
            p_BL = np.where(n > highest, p_BL, np.where(n == highest, raw, lower))
        return p_BL

    def _rank(self, order: Order, before: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Rank of the n-gram (before, token); -1 when it was never seen."""
        wanted = before * self.vocab_size + token
        rank = np.minimum(np.searchsorted(order.key, wanted), len(order.key) - 1)
        return np.where((before >= 0) & (order.key[rank] == wanted), rank, -1)


class _Interpolation:
    """Discounted counts of one order: what each n-gram keeps, what its context gives away."""

    def __init__(self, order: Order, count: np.ndarray, vocab_size: int):
        n1, n2 = np.sum(count == 1), np.sum(count == 2)
        self.discount = n1 / (n1 + 2 * n2) if n1 else 0.5
        seen = count > 0  # the first n-gram of the text has nothing before it
        context = order.key // vocab_size
        contexts = int(context[-1]) + 1
        self.count = count
        self.total = np.bincount(context, count, contexts)
        self.types = np.bincount(context, seen, contexts)

    def mix(self, context: np.ndarray, rank: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """P at this order; `lower` where the context was never seen (rank -1)."""
        inside = (context >= 0) & (context < len(self.total))
        at = np.where(inside, context, 0)
        total = np.where(inside, self.total[at], 0)
        kept = np.where(rank >= 0, np.maximum(self.count[rank] - self.discount, 0), 0)
        share = (kept + self.discount * self.types[at] * lower) / np.maximum(total, 1)
        return np.where(total > 0, share, lower)


def _orders(id_T: np.ndarray, vocab_size: int, order: int) -> list[Order]:
    """Ranks of the n-grams that end at each token, from those of n - 1 one token before."""
    tables, before = [], np.zeros(len(id_T), np.int64)  # rank of the (n-1)-gram that ends before t
    suffix = np.zeros(len(id_T), np.int64)  # rank of the (n-1)-gram that ends at t
    for n in range(1, order + 1):
        here = slice(n - 1, None)  # the first n - 1 tokens end no n-gram
        key, first, inverse, count = np.unique(
            before[here] * vocab_size + id_T[here], True, True, True
        )
        if n > 1:
            types = np.bincount(suffix[here][first], minlength=len(tables[-1].key))
            previous = tables[-1]
            tables[-1] = Order(previous.key, previous.count, types)
        tables.append(Order(key, count, count))
        suffix = np.full(len(id_T), -1)
        suffix[here] = inverse
        before = np.concatenate([[-1], suffix[:-1]])
    return tables


def unigram(count_V: np.ndarray) -> np.ndarray:
    """P of each token by its training count, plus one so that none is 0."""
    return (count_V + 1) / (count_V.sum() + len(count_V))


def baselines(dataset: "Dataset") -> dict:
    """Mean nats per held-out token: unigram_nats, fivegram_nats, and by_desk the same of each.

    On exactly the targets of dataset.held_out, counted on dataset.sample_S; cached beside the
    tokens.
    """
    data = dataset.data
    name = f"baselines-{data.sequence_length}-{data.held_out_windows}.json"
    path = dataset.tokens.folder / name
    try:
        cached = files.unsealed(path.read_text("utf-8"))
        if cached["fingerprint"] == dataset.fingerprint:
            return cached["nats"]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        logging.warning("%s is damaged (%s) and is made again", path, files.words(error))
    logging.info("data: counting n-grams")
    one_V = unigram(dataset.count_V)
    model = KneserNey(dataset.sample_S, dataset.vocab_size)
    rows = {}
    for desk in dataset.desks:
        batch = dataset.held_out(desk)
        five_BL = model.probability(batch.id_BL, batch.target_BL)
        rows[desk] = -np.log(one_V[batch.target_BL]), -np.log(five_BL)
    nats = _means(list(rows.values()))
    nats["by_desk"] = {desk: _means([pair]) for desk, pair in rows.items()}
    with room(path.parent):
        files.write(path, files.sealed({"fingerprint": dataset.fingerprint, "nats": nats}))
    return nats


def _means(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict:
    """Over every token of (unigram nats, 5-gram nats) of some desks."""
    one, five = (np.concatenate(parts).mean() for parts in zip(*pairs, strict=True))
    return {"unigram_nats": float(one), "fivegram_nats": float(five)}
