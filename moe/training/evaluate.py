"""Held-out loss on every desk, and which experts served which desk.

Batches are mixed as those of training are: where tokens compete for experts they compete with
text of all desks, and what is said of a desk is summed over its windows afterwards.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from moe.analysis import load
from moe.devices import sharding
from moe.experiment import Experiment
from moe.model.transformer import Transformer, forward
from moe.params import Params
from moe.plan import Tokens
from moe.registry import Mistake


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sums over the held-out windows of each of the Y desks, in the dataset's order.

    Attributes:
      desks: their names.
      share_Y: of all held-out tokens, also where only some of them were evaluated.
      nats_Y, tokens_Y, bytes_Y: summed loss, target tokens, and the bytes these spell.
      load_YNE: assignments of each desk's tokens per MoE layer and expert; None when dense.
      dropped_N: assignments that were not served, per MoE layer; None when dense.
      unserved_N: tokens that no expert served, per MoE layer; None when dense.
    """

    desks: tuple[str, ...]
    share_Y: np.ndarray
    nats_Y: np.ndarray
    tokens_Y: np.ndarray
    bytes_Y: np.ndarray
    load_YNE: np.ndarray | None
    dropped_N: np.ndarray | None
    unserved_N: np.ndarray | None

    @property
    def val_loss(self) -> float:
        """Nats per token over all desks' text, router losses excluded."""
        return float((self.share_Y * self.nats_Y / self.tokens_Y).sum())

    @property
    def val_bits_per_byte(self) -> float:
        """The same loss in bits per byte of text."""
        bytes_per_token = (self.share_Y * self.bytes_Y / self.tokens_Y).sum()
        return float(self.val_loss / bytes_per_token / math.log(2))

    @property
    def desk_loss(self) -> dict[str, float]:
        """Nats per token of each desk."""
        return dict(zip(self.desks, (self.nats_Y / self.tokens_Y).tolist(), strict=True))

    def row(self, experiment: Experiment, step: int) -> dict:
        """One line of metrics.jsonl, kind "eval"."""
        tokens = step * experiment.train.batch * experiment.data.sequence_length
        return {
            "kind": "eval",
            "step": step,
            "tokens": tokens,
            "val_loss": self.val_loss,
            "val_bits_per_byte": self.val_bits_per_byte,
            "desk_loss": self.desk_loss,
            "held_out_tokens": int(self.tokens_Y.sum()),
        }

    def router(self, experiment: Experiment) -> load.RouterLoad | None:
        """Load per MoE layer and desk; None without experts."""
        model = experiment.model
        call = experiment.tokens_per_call, sharding.sizes().get(sharding.EXPERT, 1)
        if model.moe is None or self.load_YNE is None:
            return None
        assert self.dropped_N is not None and self.unserved_N is not None  # as the load
        load_NE = self.load_YNE.sum(axis=0)
        desk_load = load.fractions(self.load_YNE)
        found = load.Load(load_NE, self.dropped_N, self.unserved_N / self.tokens_Y.sum())
        return load.RouterLoad(
            causal=model.causal(*call),
            causal_in_training=model.causal_in_training(*call),
            layers=list(model.moe_layers),
            num_experts=model.moe.routed_experts,
            metrics=load.measured(found),
            load=load.fractions(load_NE).tolist(),
            desk_load={d: desk_load[y].tolist() for y, d in enumerate(self.desks)},
        )


@functools.partial(jax.jit, static_argnums=0)
def eval_step(model: Transformer, params: Params, batch: Any) -> tuple:
    """Sums of each window, without router noise: nats_B, load_BNE, dropped_BN and unserved_BN.

    A dense model has the first alone.
    """
    tokens = Tokens(batch.id_BL, batch.label_BL)
    logits_BLV, reports = forward(model, params, tokens)
    nats_BL = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, batch.target_BL)
    sums = (nats_BL.sum(axis=1),)
    if reports is not None:
        counts = reports.assigned_NBLE, reports.dropped_NBL, reports.unserved_NBL
        sums += tuple(jnp.moveaxis(a.sum(axis=2), 0, 1) for a in counts)
    return sharding.everywhere(sums)


class Rows(NamedTuple):
    """One batch: which windows it is made of, and which of them are counted."""

    window_B: np.ndarray
    counted_B: np.ndarray


def evaluate(
    experiment: Experiment, params: Params, dataset: Any, batches: int | None = None
) -> Evaluation:
    """Evaluates held-out windows of all desks, each counted once, in batches like training's.

    Windows are shuffled, always in the same way, into batches of the size that the model sees in
    training, or of all windows where there are fewer. Windows that fill the last batch up are
    others, spread over all: they take the places that text of training takes, and count neither
    in losses nor in loads and drops.

    Args:
      batches: at most so many, of an equal share of each desk's windows, spread evenly over them,
        so that losses are comparable with those of all windows; None is all of them.
    """
    desks = tuple(dataset.desks)
    held_out = [dataset.held_out(desk) for desk in desks]
    windows_Y = np.array([len(windows.id_BL) for windows in held_out])
    windows = jax.tree.map(lambda *of_desks: np.concatenate(of_desks), *held_out)
    desk_W, size = (
        np.repeat(np.arange(len(desks)), windows_Y),
        batch_size(experiment, windows_Y.sum()),
    )
    chosen = chosen_windows(windows_Y, None if batches is None else batches * size)
    seen, found = [], []
    for rows in in_batches(chosen, size):
        batch = jax.tree.map(lambda a, rows=rows: a[rows.window_B], windows)
        sums = eval_step(experiment.model, params, sharding.put_batch(batch, size))
        seen.append(rows.window_B[rows.counted_B])
        found.append([np.asarray(a, np.float64)[rows.counted_B] for a in sums])
    seen, found = np.concatenate(seen), [np.concatenate(a) for a in zip(*found, strict=True)]
    target_WL = windows.target_BL[seen]

    def by_desk(value_W):
        return np.stack([value_W[desk_W[seen] == y].sum(axis=0) for y in range(len(desks))])

    nats_W, *counts = found
    load_WNE, dropped_WN, unserved_WN = counts or (None, None, None)
    return Evaluation(
        desks,
        windows_Y / windows_Y.sum(),
        by_desk(nats_W),
        by_desk(np.full(len(seen), target_WL.shape[1])),
        by_desk(dataset.byte_V[target_WL].sum(axis=1)),
        None if load_WNE is None else by_desk(load_WNE),
        None if dropped_WN is None else dropped_WN.sum(axis=0),
        None if unserved_WN is None else unserved_WN.sum(axis=0),
    )


def batch_size(experiment: Experiment, windows: int) -> int:
    """Windows of a batch: as in training, or the most that are there and that can be split."""
    train, moe = experiment.train, experiment.model.moe
    size = train.batch // train.accumulate
    for fewer in range(min(size, windows), 0, -1):
        if fewer % sharding.batch_parts():
            continue
        try:
            if moe is not None:
                moe.dispatch.check("", fewer * experiment.data.sequence_length)
            return fewer
        except Mistake:
            continue
    return size


def chosen_windows(windows_Y: np.ndarray, most: int | None) -> np.ndarray:
    """Numbers of the windows to be read, shuffled: all, or about `most`, of each desk its share."""
    total, first_Y = windows_Y.sum(), np.cumsum(windows_Y) - windows_Y
    count_Y = windows_Y
    if most is not None and most < total:
        share_Y = most * windows_Y / total
        count_Y = np.maximum(share_Y.astype(int), 1)
        left = max(0, most - count_Y.sum())
        count_Y[np.argsort(count_Y - share_Y, kind="stable")[:left]] += 1
    each = [
        first + np.linspace(0, windows - 1, count).round().astype(int)
        for first, windows, count in zip(first_Y, windows_Y, count_Y, strict=True)
    ]
    return np.random.default_rng(0).permutation(np.concatenate(each))


def in_batches(window_W: np.ndarray, size: int) -> Iterator[Rows]:
    """The windows in batches; others that were read before fill the last one up, in any places."""
    whole = len(window_W) // size * size
    for batch in window_W[:whole].reshape(-1, size):
        yield Rows(batch, np.ones(size, bool))
    rest = window_W[whole:]
    if len(rest):
        before = window_W[:whole] if whole else rest
        spread = np.linspace(0, len(before) - 1, size - len(rest)).round().astype(int)
        place = np.random.default_rng(1).permutation(size)
        filled = np.concatenate([rest, before[spread]])
        yield Rows(filled[place], (np.arange(size) < len(rest))[place])
