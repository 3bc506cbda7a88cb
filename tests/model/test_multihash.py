"""MultiHash against its formula, one token at a time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.data.counts import Corpus
from moe.model.multihash import MultiHash
from moe.plan import Tokens
from moe.routers.hash import BALANCED, Hash
from moe.routers.parts.tables import BlockTable

T, D, E, F, K, V = 30, 12, 8, 5, 2, 20


@pytest.fixture(scope="module")
def layer():
    from moe.experts.feed_forward import ReLU

    return MultiHash(E, Hash(k=K, table=BlockTable()), experts=ReLU(F), block=4)


@pytest.fixture(scope="module")
def params(layer):
    return layer.init(jax.random.key(0), D, V)


def naive(params, x_BLD, id_BL):
    x_TD, weights = x_BLD.reshape(T, D), params["experts"]
    table_VK, y_TD = np.asarray(params["router"]["state"]["expert_VK"]), []
    for x, token in zip(x_TD, np.asarray(id_BL).ravel(), strict=True):
        parts = table_VK[token].tolist()
        v = jnp.concatenate([jax.nn.relu(x @ weights["w_in_EDF"][e]) for e in parts])
        y_TD.append(jnp.concatenate([v @ weights["w_out_EUP"][e] for e in parts]))
    return jnp.stack(y_TD).reshape(x_BLD.shape)


@pytest.mark.slow
def test_values_and_gradients_are_those_of_the_formula(layer, params):
    x_BLD = jax.random.normal(jax.random.key(1), (3, 10, D))
    id_BL = jax.random.randint(jax.random.key(2), (3, 10), 0, V)
    experts = params["experts"]

    def loss(run):
        return lambda w, x: jnp.sum(jnp.sin(run({**params, "experts": w}, x)))

    def mine(params, x):
        return layer(params, x, Tokens(id_BL))[0]

    def formula(params, x):
        return naive(params, x, id_BL)

    want = formula(params, x_BLD)
    np.testing.assert_allclose(mine(params, x_BLD), want, rtol=1e-5, atol=1e-5)
    got, wanted = (jax.jit(jax.grad(loss(r), (0, 1)))(experts, x_BLD) for r in (mine, formula))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max())),
        got,
        wanted,
    )


def test_choices_lie_in_their_blocks_from_the_start_and_load_is_counted(layer, params):
    table_VK = np.asarray(params["router"]["state"]["expert_VK"])
    assert np.all(table_VK[:, 0] < E // 2) and np.all(table_VK[:, 1] >= E // 2)
    fitted = layer.fit(params, Corpus(np.ones(V), np.arange(V)), 3)
    jax.tree.map(np.testing.assert_array_equal, fitted, params)  # no text is needed
    # Each of 500 rows draws one of 4 parts of its block: a share of 1/4, standard error 0.02.
    drawn = np.asarray(BlockTable().init(jax.random.key(1), 500, E, K))
    share = [np.bincount(drawn[:, k], minlength=E) / 500 for k in range(K)]
    np.testing.assert_allclose(share, np.kron(np.eye(2), np.full(4, 1 / 4)), atol=0.08)
    id_BL = jnp.zeros((3, 10), jnp.int32)
    _, aux = layer(params, jnp.ones((3, 10, D)), Tokens(id_BL))
    want_E = np.bincount(table_VK[0], minlength=E) * T
    np.testing.assert_array_equal(aux.counts.load_E, want_E)


def test_parameters_and_products_are_those_of_relu_experts(layer):
    # E parts of D x F and K F x D / K: 2 E D F, as E two-matrix experts of width F have.
    sizes = jax.tree.map(jnp.size, layer.init(jax.random.key(0), D, V)["experts"])
    assert sum(sizes.values()) == 2 * E * D * F


def test_impossible_layers_are_one_line(layer):
    layer.check("m", T)
    with pytest.raises(ValueError, match="^m.router: must be a hash with table=block in a multi"):
        dataclasses.replace(layer, router=BALANCED).check("m", T)
    with pytest.raises(ValueError, match="^m.num_experts=7: must be divisible by router.k=2$"):
        dataclasses.replace(layer, num_experts=7).check("m", T)
    tokens = Tokens(jnp.zeros((1, 2), int))
    with pytest.raises(ValueError, match="^model.model_width=13: must be divisible by router.k=2"):
        jax.eval_shape(
            lambda x: layer(layer.init(jax.random.key(0), 13, V), x, tokens),
            jnp.ones((1, 2, 13)),
        )
