"""The gradient of one batch: loss, router losses and counts, in one piece or in microbatches.

Router losses are functions of sums over tokens (`moe/routers/parts/losses.py`), so a batch that is
cut into microbatches or spread over devices has the loss and the gradient of the undivided one.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from moe.devices import sharding
from moe.experiment import Experiment
from moe.model.transformer import forward
from moe.params import Params, merge_state
from moe.plan import Tokens
from moe.routers.parts.losses import Terms


@flax.struct.dataclass
class Metrics:
    """What one step reports.

    Attributes:
      loss, nats: with and without the router losses, nats per token.
      grad_norm: before clipping.
      losses, metrics: name -> mean over the MoE layers that have it, and over microbatches.
      load_NE, dropped_N: assignments per MoE layer, summed over the batch; None when dense.
      unserved_N: tokens that no expert served, of the batch; None when dense.
      stats: what the routers' updates need, of each MoE layer, summed over the batch.
    """

    loss: jax.Array
    nats: jax.Array
    grad_norm: jax.Array
    losses: dict[str, jax.Array]
    metrics: dict[str, jax.Array]
    load_NE: jax.Array | None
    dropped_N: jax.Array | None
    unserved_N: jax.Array | None
    stats: tuple[Terms, ...] = ()


def loss_fn(
    learned: Params,
    state: Params,
    experiment: Experiment,
    part: tuple[Any, jax.Array],
    totals: tuple[Terms, ...] | None = None,
) -> tuple[jax.Array, Metrics]:
    """Mean nats per token plus the router losses, each averaged over the MoE layers that have it.

    Args:
      part: a batch or microbatch, and its rng.
      totals: the sums behind the routers' losses over all microbatches, for losses whose scope is
        the batch. A loss is then that of the whole batch, and its gradient this microbatch's
        share, multiplied by the number of microbatches since the caller takes a mean.
    """
    batch, rng = part
    params = merge_state(learned, state)
    tokens = Tokens(batch.id_BL, batch.label_BL)
    logits_BLV, reports = forward(experiment.model, params, tokens, rng)
    nats_BL = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, batch.target_BL)
    nats = nats_BL.mean()
    if reports is None:
        return nats, Metrics(nats, nats, jnp.zeros(()), {}, {}, None, None, None)
    if totals is not None:
        reports = _with_totals(experiment, reports, totals, batch.id_BL.size)
    losses, metrics = _means(reports.losses), _means(reports.metrics)
    loss = nats + sum(losses.values())
    dropped_N, unserved_N = (a.sum((1, 2)) for a in (reports.dropped_NBL, reports.unserved_NBL))
    counts = reports.load_NE, dropped_N, unserved_N, reports.stats
    return loss, Metrics(loss, nats, jnp.zeros(()), losses, metrics, *counts)


def _with_totals(experiment: Experiment, reports: Any, totals: Any, tokens: int) -> Any:
    """The reports, with losses of batch scope formed from the sums over all microbatches."""
    A = experiment.train.accumulate

    def value_of_all(total, own):
        return jax.lax.stop_gradient(total) + A * (own - jax.lax.stop_gradient(own))

    losses, metrics = list(reports.losses), list(reports.metrics)
    for n, router in enumerate(experiment.model.routers):
        if totals[n]:
            sums = jax.tree.map(value_of_all, totals[n], reports.sums[n])
            losses[n], found = router.losses(sums, A * tokens)
            metrics[n] = {**metrics[n], **found}
    return reports.replace(losses=tuple(losses), metrics=tuple(metrics))


def _means(layers: tuple[Terms, ...]) -> Terms:
    """Name -> mean over the layers that have it."""
    names = dict.fromkeys(name for found in layers for name in found)
    return {name: jnp.mean(jnp.stack([d[name] for d in layers if name in d])) for name in names}


def _total(function: Callable[[Any], Any], parts: Any) -> Any:
    """The sum of function(part), a tree of arrays, over the leading axis of `parts`, in turn."""
    first = jax.tree.map(lambda a: a[0], parts)
    shapes = jax.eval_shape(function, first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(part)), None

    return jax.lax.scan(add, zeros, parts)[0]


def _batch_sums(experiment, learned, state, parts) -> tuple[Terms, ...] | None:
    """A forward pass over all microbatches, for the sums of losses whose scope is the batch."""
    model = experiment.model
    if all(router.losses.scope != "batch" for router in model.routers):
        return None
    params = merge_state(learned, state)

    def sums(part):
        batch, rng = part
        tokens = Tokens(batch.id_BL, batch.label_BL)
        reports = forward(model, params, tokens, rng)[1]
        return () if reports is None else reports.sums

    return _total(sums, parts)


def _microbatches(rows: jax.Array, A: int) -> jax.Array:
    """A parts of neighbouring rows, each spread over all devices."""
    parts_ABL = rows.reshape(A, rows.shape[0] // A, *rows.shape[1:])
    return sharding.constrain(parts_ABL, "ABL")


def gradients(
    experiment: Experiment, learned: Params, state: Params, batch: Any, rng: jax.Array
) -> tuple[Params, Metrics]:
    """Gradient of the batch, in `accumulate` parts in turn: mean loss, summed counts.

    Router losses whose scope is the batch cost a second forward pass when there are parts, since
    their gradient needs the sums over all of them; then it is that of one undivided batch.
    """
    A = experiment.train.accumulate
    grad = jax.grad(loss_fn, has_aux=True)
    if A == 1:
        return grad(learned, state, experiment, (batch, rng))
    batches = jax.tree.map(lambda a: _microbatches(a, A), batch)
    parts = batches, jax.random.split(rng, A)
    totals = _batch_sums(experiment, learned, state, parts)
    grads, metrics = _total(lambda part: grad(learned, state, experiment, part, totals), parts)
    mean = functools.partial(jax.tree.map, lambda a: a / A)
    summed = "load_NE", "dropped_N", "unserved_N", "stats"
    counts = {name: getattr(metrics, name) for name in summed}
    return mean(grads), mean(metrics).replace(**counts)
