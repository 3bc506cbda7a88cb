"""Training: one pure step, and the loop around it that logs, evaluates, saves and resumes."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from moe import checkpoint, sharding
from moe.analysis import load
from moe.evaluate import Evaluation, evaluate
from moe.experiment import Experiment
from moe.gradients import Metrics, gradients, merge_state, split_state
from moe.mesh import is_first
from moe.metrics import MetricsLog, NoLog
from moe.model import map_routers
from moe.routing import Corpus, Params


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds: the steps taken, all parameters, the optimizer's moments."""

    step: jax.Array
    params: Params
    opt_state: Any


def init(experiment: Experiment, corpus: Corpus | None) -> TrainState:
    """Makes the state before step 0; routers may learn of the training corpus, if there is one."""
    model, seed = experiment.model, experiment.seed
    train = experiment.train
    shape = (train.batch // train.accumulate, experiment.data.sequence_length)
    ids = jnp.zeros(shape, jnp.int32)
    key = jax.random.key(seed)
    params = sharding.place(lambda key: model.init(key, ids, None, ids)["params"], key)
    if model.moe is not None and corpus is not None:
        E = model.moe.routed_experts

        def fit(params, n):
            return model.routers[n].fit(params, E, corpus, 1000 * seed + n)

        params = sharding.put(map_routers(params, fit))
    learned, _ = split_state(params)
    opt_state = sharding.place(experiment.optimizer.transformation(train.steps).init, learned)
    return TrainState(sharding.put(jnp.zeros((), jnp.int32)), params, opt_state)


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
    routers = experiment.model.routers

    def update(params, n):
        return routers[n].update(params, metrics.load_NE[n], metrics.stats[n])

    if routers:
        params = map_routers(params, update)
    metrics = metrics.replace(grad_norm=optax.tree.norm(grads))
    state = sharding.stored(TrainState(state.step + 1, params, opt_state))
    return state, sharding.everywhere(metrics)


def train_step(experiment: Experiment, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    """One optimizer step; the state is donated. The seed is data: seeds share a compilation.

    On a mesh, batch holds all rows or those that `sharding.rows` names.
    """
    batch = sharding.put_batch(batch, experiment.train.batch)
    return _train_step(dataclasses.replace(experiment, seed=0), state, batch, experiment.seed)


def abstract_state(experiment: Experiment) -> TrainState:
    """Shapes and dtypes of `init`'s state, and shardings where a mesh is in use; no arrays."""
    state = jax.eval_shape(lambda: init(experiment, None))
    if not sharding.sizes():
        return state
    mesh = jax.sharding.get_mesh()

    def placed(leaf, spec):
        named = jax.NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=named)

    return jax.tree.map(placed, state, sharding.specs(state))


def lower(experiment: Experiment) -> jax.stages.Lowered:
    """The training step on the mesh in use, ready to compile; its devices need not be there."""
    from moe.data.loader import Batch  # which loads a tokenizer: not when moe is imported

    state = abstract_state(experiment)
    shape = (experiment.train.batch, experiment.data.sequence_length)
    row = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding.of_rows())
    return _train_step.lower(dataclasses.replace(experiment, seed=0), state, Batch(*[row] * 5), 0)


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
    state = init(experiment, dataset.corpus)
    checkpoints = checkpoint.Checkpoints(directory / "checkpoints", experiment_text)
    restored = checkpoints.restore(checkpoint.abstract(state))
    if restored:
        state = restored[1]
    start = int(state.step)
    log = MetricsLog(directory, start) if is_first() else NoLog()
    batches = dataset.stream(experiment.seed, start, train.batch, sharding.rows(train.batch))
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
