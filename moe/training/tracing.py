"""A model's routing traces: it runs at evaluation over windows of text, batch by batch.

What is kept of each token, `moe.analysis.trace` says. Held-out text comes in the batches that
`evaluate` makes of it, since tokens may compete for experts; other text comes in its own order.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from moe.analysis.trace import About, LayerTrace, Trace
from moe.checkpoint.checksum import checksums
from moe.data import labels
from moe.data.data import WORD_CLASSES
from moe.data.windows import Text, Windows
from moe.experiment import Experiment
from moe.model import watch
from moe.model.transformer import Transformer
from moe.params import Params
from moe.plan import Tokens
from moe.registry import Mistake
from moe.training.evaluate import batch_size, chosen_windows, in_batches

SAMPLE = 2048  # tokens, about, whose router inputs are kept


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained model, its text, and what its traces say of it: all but vocabulary and names."""

    experiment: Experiment
    params: Params
    dataset: Any
    about: About


class _Block(NamedTuple):
    """Windows, and their numbers in the order in which they are read."""

    windows: Windows
    order_W: np.ndarray


def fingerprint(params: Params) -> str:
    """SHA-256 of the checksums of all parameters, the same on any machine and mesh."""
    return hashlib.sha256(json.dumps(sorted(checksums(params)[0].items())).encode()).hexdigest()


def of_held_out(subject: Subject, tokens: int | None = None) -> Iterator[Trace]:
    """Pieces of the trace over the held-out windows, as `evaluate` reads them.

    Args:
      tokens: about so many, of each desk its share, spread over its windows; None is all.
    """
    dataset, length = subject.dataset, subject.experiment.data.sequence_length
    parts = []
    for desk in dataset.desks:
        batch = dataset.held_out(desk)
        columns = batch.id_BL, batch.target_BL, batch.desk_BL, batch.class_BL
        parts.append(Windows(*columns, dataset.document(desk)))
    joined = [np.concatenate(of) for of in zip(*map(_columns, parts), strict=True)]
    windows_Y = np.array([len(part.id_WL) for part in parts])
    most = None if tokens is None else max(1, tokens // length)
    block = _Block(Windows(*joined), chosen_windows(windows_Y, most))
    names = tuple(dataset.desks)
    return _pieces(subject, [block], names, len(block.order_W) * block.windows.id_WL.shape[1])


def of_text(subject: Subject, text: Text, tokens: int | None = None) -> Iterator[Trace]:
    """Pieces of the trace over another text, in bounded memory.

    Raises Mistake where a router is guided by labels that the data set does not have.
    """
    data, dataset = subject.experiment.data, subject.dataset
    known = {"desk": (text.desks, dataset.desks), "class": (text.classes, dataset.classes)}
    mine, its = known.get(data.label, ((), ()))
    if any(router.needs_labels for router in subject.experiment.model.routers):
        if others := [name for name in mine if name not in its]:
            raise Mistake(
                f"--text: {others[0]}: the router is guided by data.label={data.label}, which has "
                f"no such one (valid: {', '.join(its)})"
            )
    weights = dataset.count_V / max(1, dataset.count_V.sum())
    expected = int(text.bytes / max(1.0, float(dataset.byte_V @ weights)))
    expected = expected if tokens is None else min(expected, tokens)
    blocks = (
        _Block(windows, np.arange(len(windows.id_WL)))
        for windows in text.windows(data.sequence_length, tokens)
    )
    return _pieces(subject, blocks, text.desks, expected)


def _columns(windows: Windows) -> tuple[np.ndarray, ...]:
    return tuple(getattr(windows, field.name) for field in dataclasses.fields(windows))


def _pieces(
    subject: Subject, blocks: Iterable[_Block], desks: tuple[str, ...], expected: int
) -> Iterator[Trace]:
    """A piece for each batch.

    Args:
      expected: tokens, about, over which the sample is spread.
    """
    watch.check(subject.experiment.model)
    dataset = subject.dataset
    texts = [dataset.decode([i]) for i in range(dataset.vocab_size)]
    names = {"vocabulary": tuple(texts), "desks": desks, "classes": WORD_CLASSES}
    class_V = labels.of_ids("word", dataset.count_V, texts)
    assert class_V is not None  # word classes are of ids
    # An odd stride meets every position of a window whose length is a power of two.
    stride = max(1, expected // SAMPLE) | 1
    about = dataclasses.replace(subject.about, **names)
    run = _Run(subject, about, class_V.astype(np.int16), stride, _layers(subject))
    first, size = 0, None
    for windows, order_W in blocks:
        size = size or batch_size(subject.experiment, len(order_W))
        for rows in in_batches(order_W, size):
            batch = Windows(*(column[rows.window_B] for column in _columns(windows)))
            piece = run.piece(batch, rows.counted_B, first)
            yield piece
            first += piece.tokens


def _layers(subject: Subject) -> list[LayerTrace]:
    """Of each MoE layer what no token changes."""
    model, none = subject.experiment.model, np.zeros((0, 0))
    facts = zip(model.moe_layers, model.routers, strict=True)
    rows = none, none, none, np.zeros(0), np.zeros(0), none
    return [
        LayerTrace(layer, model.sparse.routed_experts, type(router).__name__, *rows, matrix)
        for (layer, router), matrix in zip(
            facts, watch.matrices(model, subject.params), strict=True
        )
    ]


@dataclasses.dataclass(frozen=True)
class _Run:
    """What makes pieces of one trace: every `stride`-th of its tokens is sampled."""

    subject: Subject
    about: About
    class_V: np.ndarray
    stride: int
    layers: list[LayerTrace]

    def piece(self, batch: Windows, counted_B: np.ndarray, first: int) -> Trace:
        """The tokens of the windows that count, of which `first` came before."""
        length, dataset = batch.id_WL.shape[1], self.subject.dataset
        token_T = (np.flatnonzero(counted_B)[:, None] * length + np.arange(length)).reshape(-1)
        sample_S = np.flatnonzero((np.arange(len(token_T)) + first) % self.stride == 0)
        pick_P = np.zeros(batch.id_WL.size // self.stride + 1, np.int32)  # of one size for jit
        pick_P[: len(sample_S)] = token_T[sample_S]
        label_BL = dataset.label(batch.id_WL, batch.desk_WL, batch.class_WL)
        text = batch.id_WL, label_BL, batch.target_WL
        model, params = self.subject.experiment.model, self.subject.params
        nats_T, seen = jax.device_get(_step(model, params, text, pick_P))
        columns = (column.reshape(-1)[token_T] for column in _columns(batch))
        id_T, target_T, desk_T, _, document_T = columns
        return Trace(
            about=self.about,
            id_T=id_T,
            target_T=target_T,
            position_T=(token_T % length).astype(np.int32),
            document_T=document_T,
            desk_T=desk_T.astype(np.int16),
            class_T=self.class_V[id_T],
            loss_T=nats_T[token_T],
            layers=tuple(
                dataclasses.replace(
                    layer,
                    expert_TK=one.expert_TK[token_T],
                    gate_TK=one.gate_TK[token_T],
                    kept_TK=one.kept_TK[token_T],
                    margin_T=one.margin_T[token_T],
                    sample_S=sample_S.astype(np.int32),
                    input_SD=one.x_TD[: len(sample_S)],
                )
                for layer, one in zip(self.layers, seen, strict=True)
            ),
        )


@functools.partial(jax.jit, static_argnums=0)
def _step(model: Transformer, params: Params, text: tuple, pick_P: jax.Array) -> Any:
    """nats_T and each layer's `Seen` of all of a batch's tokens, with inputs of some alone."""
    id_BL, label_BL, target_BL = text
    logits_BLV, layers = watch.watched(model, params, Tokens(id_BL, label_BL))
    nats_BL = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, target_BL)
    picked = tuple(dataclasses.replace(layer, x_TD=layer.x_TD[pick_P]) for layer in layers)
    return jnp.maximum(nats_BL.reshape(-1), 0), picked  # rounding may leave less than 0
