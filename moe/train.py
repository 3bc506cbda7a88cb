"""Training: the state before step 0 and one pure step; `moe.loop` takes the steps."""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from moe.experiment import Experiment
from moe.gradients import Metrics, gradients, merge_state, split_state
from moe.model import map_routers
from moe.routing import Corpus, Params


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds: the steps taken, all parameters, the optimizer's moments."""

    step: jax.Array
    params: Params
    opt_state: Any


def init(experiment: Experiment, corpus: Corpus) -> TrainState:
    """Makes the state before step 0; routers may learn of the training corpus."""
    model, seed = experiment.model, experiment.seed
    shape = (1, experiment.data.sequence_length)
    ids = jnp.zeros(shape, jnp.int32)
    params = jax.jit(lambda key: model.init(key, ids, None, ids)["params"])(jax.random.key(seed))
    if model.moe is not None:
        E = model.moe.routed_experts

        def fit(params, n):
            return model.routers[n].fit(params, E, corpus, 1000 * seed + n)

        params = map_routers(params, fit)
    learned, _ = split_state(params)
    opt_state = experiment.optimizer.transformation(experiment.train.steps).init(learned)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


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
    return TrainState(state.step + 1, params, opt_state), metrics


def train_step(experiment: Experiment, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    """One optimizer step; the state is donated. The seed is data: seeds share a compilation."""
    return _train_step(dataclasses.replace(experiment, seed=0), state, batch, experiment.seed)
