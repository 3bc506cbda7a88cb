"""Training: the state before step 0 and one pure step; `moe.training.loop` takes the steps."""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from moe.data.counts import Corpus
from moe.devices import sharding
from moe.experiment import Experiment
from moe.model.depth import map_routers
from moe.params import Params, merge_state, named, split_state
from moe.plan import Tokens
from moe.training.gradients import Metrics, gradients


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds: the steps taken, all parameters, the optimizer's moments."""

    step: jax.Array
    params: Params
    opt_state: Any


def init(experiment: Experiment, corpus: Corpus | None) -> TrainState:
    """Makes the state before step 0; routers learn of the training corpus.

    Raises Mistake where a router needs the corpus and there is none.
    """
    params = experiment.model.fit(_params(experiment), corpus, experiment.seed)
    return _stated(experiment, sharding.put(params))


def _params(experiment: Experiment) -> Params:
    """All parameters, before routers are fitted."""
    model, train = experiment.model, experiment.train
    shape = (train.batch // train.accumulate, experiment.data.sequence_length)
    ids = jnp.zeros(shape, jnp.int32)
    key = jax.random.key(experiment.seed)
    return sharding.place(lambda key: model.init(key, Tokens(ids, ids))["params"], key)


def _stated(experiment: Experiment, params: Params) -> TrainState:
    """The state before step 0 with these parameters."""
    learned, _ = split_state(params)
    train = experiment.train
    opt_state = sharding.place(experiment.optimizer.transformation(train.steps).init, learned)
    return TrainState(sharding.put(jnp.zeros((), jnp.int32)), params, opt_state)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _train_step(
    experiment: Experiment, state: TrainState, batch: Any, seed: jax.Array
) -> tuple[TrainState, Metrics]:
    rng = jax.random.fold_in(named(jax.random.key(seed), "steps"), state.step)
    learned, fixed = split_state(state.params)
    grads, metrics = gradients(experiment, learned, fixed, batch, rng)
    transformation = experiment.optimizer.transformation(experiment.train.steps)
    updates, opt_state = transformation.update(grads, state.opt_state, learned)
    params = merge_state(optax.apply_updates(learned, updates), fixed)
    routers = experiment.model.routers
    load_NE: Any = metrics.load_NE

    def update(params, n):
        return routers[n].update(params, load_NE[n], metrics.stats[n])

    if load_NE is not None:
        params = map_routers(params, update)
    metrics = dataclasses.replace(metrics, grad_norm=optax.tree.norm(grads))
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
    state = jax.eval_shape(lambda: _stated(experiment, _params(experiment)))
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
    row: Any = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding.of_rows())
    return _train_step.lower(dataclasses.replace(experiment, seed=0), state, Batch(*[row] * 5), 0)
