"""Held-out loss on every desk, and which experts served which desk."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

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


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sums over the held-out windows of each of the Y desks, in the dataset's order.

    Attributes:
      desks: their names.
      nats_Y, tokens_Y, bytes_Y: summed loss, target tokens, and the bytes these spell.
      load_YNE: assignments of each desk's tokens per MoE layer and expert; None when dense.
      dropped_N: assignments that were not served, per MoE layer; None when dense.
    """

    desks: tuple[str, ...]
    nats_Y: np.ndarray
    tokens_Y: np.ndarray
    bytes_Y: np.ndarray
    load_YNE: np.ndarray | None
    dropped_N: np.ndarray | None

    @property
    def val_loss(self) -> float:
        """Nats per token over all desks' windows, router losses excluded."""
        return float(self.nats_Y.sum() / self.tokens_Y.sum())

    @property
    def val_bits_per_byte(self) -> float:
        """The same loss in bits per byte of text."""
        return float(self.nats_Y.sum() / self.bytes_Y.sum() / math.log(2))

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

    def router(self, model: Transformer) -> load.RouterLoad | None:
        """Load per MoE layer and desk; None without experts."""
        if self.load_YNE is None or self.dropped_N is None or model.moe is None:
            return None
        load_NE = self.load_YNE.sum(axis=0)
        desk_load = load.fractions(self.load_YNE)
        return load.RouterLoad(
            causal=all(router.causal for router in model.routers),
            causal_in_training=all(router.causal_in_training for router in model.routers),
            layers=list(model.moe_layers),
            num_experts=model.moe.routed_experts,
            metrics=load.measured(load.Load(load_NE, self.dropped_N)),
            load=load.fractions(load_NE).tolist(),
            desk_load={d: desk_load[y].tolist() for y, d in enumerate(self.desks)},
        )


@functools.partial(jax.jit, static_argnums=0)
def eval_step(model: Transformer, params: Params, batch: Any) -> tuple:
    """Per-window sums without router noise: nats_B, load_BNE and dropped_N (None when dense)."""
    tokens = Tokens(batch.id_BL, batch.label_BL)
    logits_BLV, reports = forward(model, params, tokens)
    nats_BL = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, batch.target_BL)
    if reports is None:
        return sharding.everywhere(nats_BL.sum(axis=1)), None, None
    load_BNE = jnp.moveaxis(reports.assigned_NBLE.sum(axis=2), 0, 1)
    return sharding.everywhere((nats_BL.sum(axis=1), load_BNE, reports.dropped_N))


def _batches(W: int, B: int, batches: int | None) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of B windows, and how many of them count; the last one repeats to stay full."""
    if batches is not None and batches * B < W:
        for rows in np.linspace(0, W - 1, batches * B).round().astype(int).reshape(batches, B):
            yield rows, B
        return
    for first in range(0, W, B):
        yield np.minimum(np.arange(first, first + B), W - 1), min(B, W - first)


def evaluate(
    experiment: Experiment, params: Params, dataset: Any, batches: int | None = None
) -> Evaluation:
    """Evaluates the held-out windows, desk by desk, in batches of the training batch's size.

    The last batch of a desk repeats its last window to stay full; repeats do not count towards
    losses and loads. (They do occupy slots where a dispatcher has a capacity.)

    batches: of each desk, its windows spread evenly over all; None is all windows.
    """
    model, B = experiment.model, experiment.train.batch // experiment.train.accumulate
    desks = tuple(dataset.desks)
    nats, tokens, texts, loads = [], [], [], []
    dropped: Any = 0
    for desk in desks:
        windows = dataset.held_out(desk)
        W = windows.id_BL.shape[0]
        nats_y, load_y, seen = 0.0, 0.0, []
        for rows, real in _batches(W, B, batches):
            seen += rows[:real].tolist()
            batch = jax.tree.map(lambda a, rows=rows: a[rows], windows)
            sums = eval_step(model, params, sharding.put_batch(batch, B))
            nats_y += np.asarray(sums[0], np.float64)[:real].sum()
            if sums[1] is not None:
                load_y = load_y + np.asarray(sums[1], np.float64)[:real].sum(axis=0)
                dropped = dropped + np.asarray(sums[2], np.float64) * (real / B)
        nats.append(nats_y)
        tokens.append(windows.target_BL[seen].size)
        texts.append(int(dataset.byte_V[windows.target_BL[seen]].sum()))
        loads.append(load_y)
    dense = model.moe is None
    return Evaluation(
        desks,
        np.array(nats),
        np.array(tokens),
        np.array(texts),
        None if dense else np.stack(loads),
        None if dense else dropped,
    )
