"""Training: one pure step, and the loop around it that logs, evaluates, saves and resumes."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from moe import checkpoint
from moe.analysis import load
from moe.evaluate import Evaluation, evaluate
from moe.experiment import Experiment
from moe.metrics import MetricsLog
from moe.model import map_routers
from moe.routing import Params


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds: the steps taken, all parameters, the optimizer's moments."""

    step: jax.Array
    params: Params
    opt_state: Any


@flax.struct.dataclass
class Metrics:
    """What one step reports.

    Attributes:
      loss, nats: with and without the router losses, nats per token.
      grad_norm: before clipping.
      losses, metrics: name -> mean over MoE layers and microbatches.
      load_NE, dropped_N: assignments per MoE layer, summed over the batch; None when dense.
    """

    loss: jax.Array
    nats: jax.Array
    grad_norm: jax.Array
    losses: dict[str, jax.Array]
    metrics: dict[str, jax.Array]
    load_NE: jax.Array | None
    dropped_N: jax.Array | None


def split_state(params: Params) -> tuple[Params, Params]:
    """Splits parameters into what gradients move and what lies under a key "state"."""
    flat = flax.traverse_util.flatten_dict(params, keep_empty_nodes=True)
    learned = {path: leaf for path, leaf in flat.items() if "state" not in path}
    state = {path: leaf for path, leaf in flat.items() if "state" in path}
    return tuple(map(flax.traverse_util.unflatten_dict, (learned, state)))


def merge_state(learned: Params, state: Params) -> Params:
    """Undoes `split_state`."""
    flat = (flax.traverse_util.flatten_dict(p, keep_empty_nodes=True) for p in (learned, state))
    return flax.traverse_util.unflatten_dict({**next(flat), **next(flat)})


def init(experiment: Experiment, count_V: np.ndarray) -> TrainState:
    """Makes the state before step 0; count_V are the training corpus' token counts."""
    model, router = experiment.model, experiment.model.moe and experiment.model.moe.router
    shape = (1, experiment.data.sequence_length)
    key = jax.random.key(experiment.seed)
    params = jax.jit(lambda key: model.init(key, jnp.zeros(shape, jnp.int32))["params"])(key)
    if router:
        E, seed = model.moe.num_experts, experiment.seed
        params = map_routers(params, lambda p, n: router.fit(p, E, count_V, 1000 * seed + n))
    learned, _ = split_state(params)
    opt_state = experiment.optimizer.transformation(experiment.train.steps).init(learned)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def loss_fn(
    learned: Params, state: Params, experiment: Experiment, batch: Any, rng: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Mean nats per token plus the router losses, averaged over MoE layers."""
    params = merge_state(learned, state)
    logits_BLV, aux = experiment.model.apply({"params": params}, batch.id_BL, rng)
    nats_BL = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, batch.target_BL)
    nats = nats_BL.mean()
    if aux is None:
        return nats, Metrics(nats, nats, jnp.zeros(()), {}, {}, None, None)
    losses, metrics = (jax.tree.map(jnp.mean, tree) for tree in (aux.losses, aux.metrics))
    loss = nats + sum(losses.values())
    dropped_N = aux.counts.dropped_K.sum(axis=-1)
    return loss, Metrics(loss, nats, jnp.zeros(()), losses, metrics, aux.counts.load_E, dropped_N)


def gradients(
    experiment: Experiment, learned: Params, state: Params, batch: Any, rng: jax.Array
) -> tuple[Params, Metrics]:
    """Gradient of the batch, in `accumulate` parts in turn: mean loss, summed counts."""
    A = experiment.train.accumulate
    grad = jax.grad(loss_fn, has_aux=True)
    if A == 1:
        return grad(learned, state, experiment, batch, rng)
    parts = jax.tree.map(lambda a: a.reshape(A, a.shape[0] // A, *a.shape[1:]), batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, grad(learned, state, experiment, *part)), None

    part_rngs = jax.random.split(rng, A)
    first = jax.tree.map(lambda a: a[0], (parts, part_rngs))
    shapes = jax.eval_shape(lambda part: grad(learned, state, experiment, *part), first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (grads, metrics), _ = jax.lax.scan(add, zeros, (parts, part_rngs))
    mean = functools.partial(jax.tree.map, lambda a: a / A)
    counts = {"load_NE": metrics.load_NE, "dropped_N": metrics.dropped_N}
    return mean(grads), mean(metrics).replace(**counts)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _train_step(
    experiment: Experiment, state: TrainState, batch: Any, seed: jax.Array
) -> tuple[TrainState, Metrics]:
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    learned, fixed = split_state(state.params)
    grads, metrics = gradients(experiment, learned, fixed, batch, rng)
    transformation = experiment.optimizer.transformation(experiment.train.steps)
    updates, opt_state = transformation.update(grads, state.opt_state, learned)
    params = merge_state(optax.apply_updates(learned, updates), fixed)
    moe = experiment.model.moe
    if moe is not None:
        params = map_routers(params, lambda p, n: moe.router.update(p, metrics.load_NE[n]))
    metrics = metrics.replace(grad_norm=optax.tree.norm(grads))
    return TrainState(state.step + 1, params, opt_state), metrics


def train_step(experiment: Experiment, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    """One optimizer step; the state is donated. The seed is data: seeds share a compilation."""
    return _train_step(dataclasses.replace(experiment, seed=0), state, batch, experiment.seed)


@dataclasses.dataclass
class Result:
    """What `train` leaves behind: the trained state, its last evaluation, and times in seconds."""

    state: TrainState
    evaluation: Evaluation
    wall_s: float
    compile_s: float
    step_s: float  # median over the steps of this process; nan without any
    resumed_from: int


def train(
    experiment: Experiment,
    dataset: Any,
    directory: pathlib.Path,
    experiment_text: str,
    on_log: Callable[[dict], None] = lambda row: None,
) -> Result:
    """Runs an experiment to its end, from the newest checkpoint in `directory` if there is one.

    Args:
      dataset: what `moe.data.loader.load` returns.
      directory: gets metrics.jsonl, tensorboard/ and checkpoints/.
      experiment_text: saved with every checkpoint; another text there is refused.
      on_log: called with every row of metrics.jsonl as it is written, and with {"kind": "step"}.

    Raises FloatingPointError on a loss that is not finite; the last checkpoint is kept.
    """
    began, train = time.perf_counter(), experiment.train
    state = init(experiment, dataset.count_V)
    checkpoints = checkpoint.Checkpoints(directory / "checkpoints", experiment_text)
    restored = checkpoints.restore(checkpoint.abstract(state))
    if restored:
        state = restored[1]
    start = int(state.step)
    log = MetricsLog(directory, start)
    batches = dataset.stream(experiment.seed, start, train.batch)
    seconds, compile_s = [], 0.0
    try:
        for step in range(start + 1, train.steps + 1):
            batch, tick = next(batches), time.perf_counter()
            state, metrics = train_step(experiment, state, batch)
            jax.block_until_ready(metrics)
            last, took = step == train.steps, time.perf_counter() - tick
            if step == start + 1:
                compile_s = took
            else:
                seconds.append(took)
            if step % train.log_every == 0 or last:
                row = train_row(experiment, metrics, step, seconds)
                log.write(row)
                on_log(row)
                _check_finite(row, directory)
            if step % train.eval_every == 0 and not last:
                row = evaluate(experiment, state.params, dataset).row(experiment, step)
                log.write(row)
                on_log(row)
            if step % train.save_every == 0 or last:
                checkpoints.save(step, state)
            on_log({"kind": "step", "step": step})
        evaluation = evaluate(experiment, state.params, dataset)
        if start < train.steps:
            log.write(evaluation.row(experiment, train.steps))
            on_log(evaluation.row(experiment, train.steps))
    finally:
        log.close()
        checkpoints.close()
    step_s = float(np.median(seconds)) if seconds else float("nan")
    return Result(state, evaluation, time.perf_counter() - began, compile_s, step_s, start)


def train_row(experiment: Experiment, metrics: Metrics, step: int, seconds: list[float]) -> dict:
    """One line of metrics.jsonl, kind "train"."""
    tokens = experiment.train.batch * experiment.data.sequence_length
    recent = seconds[-experiment.train.log_every :]
    schedule = experiment.optimizer.schedule(
        experiment.optimizer.learning_rate, experiment.train.steps
    )
    router = None
    if metrics.load_NE is not None:
        load_NE = np.asarray(metrics.load_NE)
        router = {
            "load_entropy": load.load_entropy(load_NE).tolist(),
            "max_violation": load.max_violation(load_NE).tolist(),
            "drop_rate": (np.asarray(metrics.dropped_N) / load_NE.sum(axis=-1)).tolist(),
        }
    return {
        "kind": "train",
        "step": step,
        "tokens": step * tokens,
        "loss": float(metrics.loss),
        "nats": float(metrics.nats),
        "grad_norm": float(metrics.grad_norm),
        "learning_rate": float(schedule(step - 1)),
        "tokens_per_s": tokens / float(np.median(recent)) if recent else None,
        "router": router,
        "losses": {name: float(value) for name, value in metrics.metrics.items()},
    }


def _check_finite(row: dict, directory: pathlib.Path) -> None:
    if not np.isfinite(row["loss"]):
        raise FloatingPointError(
            f"loss={row['loss']} at step {row['step']} in {directory}: the run stops, its last "
            "checkpoint is kept; try a lower optimizer.learning_rate"
        )
