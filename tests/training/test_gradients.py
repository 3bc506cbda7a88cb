"""One batch, microbatches and devices: the same loss, gradient, counts and router updates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.data.data import Data
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import SwiGLU
from moe.model.attention import Attention
from moe.model.depth import map_routers
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.params import merge_state, split_state
from moe.routers.hash import BALANCED
from moe.routers.kmeans import KMeans
from moe.routers.loss_free import LossFree
from moe.routers.parts.losses import Losses
from moe.routers.relu import ReLURouter
from moe.routers.top_k import TopK
from moe.training import step
from tests.fakes.data import SyntheticDataset

DATASET = SyntheticDataset()


def experiment(router, **changes):
    model = Transformer(
        vocab_size=32,
        num_layers=1,
        model_width=16,
        attention=Attention(num_heads=2, num_kv_heads=1, head_width=8),
        moe=MoE(num_experts=4, router=router, experts=SwiGLU(16)),
        moe_layers=(0,),
    )
    data = Data(sequence_length=16)
    return Experiment(model=model, data=data, train=Train(**{"batch": 8, **changes}))


ROUTERS = {
    "batch": TopK(k=2),
    "sequence": TopK(k=2, losses=Losses(load_balance=0.5, scope="sequence")),
    "importance": TopK(k=1, losses=Losses(importance=0.5, orthogonality=0.1)),
    "loss_free": LossFree(k=2, losses=Losses(load_balance=0.5)),
    "relu": ReLURouter(start=0.1),
    "kmeans": KMeans(),
    "hash": BALANCED,
}
SPREAD = ("batch", "relu")  # over 8 devices, too; test_exactness.py has the others on a mesh


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTERS)
def test_microbatches_and_devices_give_the_loss_gradient_and_update_of_one_batch(name):
    router = ROUTERS[name]
    batch = jax.tree.map(jnp.asarray, DATASET.batch(0, 0, 8))
    whole = experiment(router)
    params = step.init(whole, DATASET.corpus).params
    learned, fixed = split_state(params)
    rng = jax.random.key(0)

    @functools.partial(jax.jit, static_argnums=0)
    def run(experiment, learned, fixed, batch):
        grads, metrics = step.gradients(experiment, learned, fixed, batch, rng)

        def update(p, n):
            return router.update(p, metrics.load_NE[n], metrics.stats[n])

        state = map_routers(merge_state(learned, fixed), update)
        return grads, metrics.replace(metrics={}), split_state(state)[1]

    want = run(whole, learned, fixed, batch)
    got = [run(experiment(router, accumulate=4), learned, fixed, batch)]
    if name in SPREAD:
        mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        spread = jax.device_put(batch, jax.NamedSharding(mesh, jax.P("data")))
        got.append(run(whole, learned, fixed, spread))

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5 * float(jnp.abs(b).max() + 1e-9))

    for parts in got:
        jax.tree.map(close, parts, want)
        np.testing.assert_array_equal(parts[1].load_NE, want[1].load_NE)


@pytest.mark.slow
def test_a_sequence_scope_is_not_the_batch():
    # The same weight over each sequence alone gives another loss than over the whole batch.
    batch = jax.tree.map(jnp.asarray, DATASET.batch(0, 0, 8))
    found = []
    for scope in ("batch", "sequence"):
        run = experiment(TopK(k=2, losses=Losses(load_balance=0.5, z_loss=0.0, scope=scope)))
        learned, fixed = split_state(step.init(run, DATASET.corpus).params)
        gradients = jax.jit(step.gradients, static_argnums=0)
        metrics = gradients(run, learned, fixed, batch, jax.random.key(0))[1]
        found.append(float(metrics.loss - metrics.nats))
    # Within a sequence loads are less even than over all: the loss is larger.
    assert found[1] > found[0] * 1.02
