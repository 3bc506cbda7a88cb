"""Hosts in Flax give routers the text that they are fitted to, or refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from moe.data.counts import Corpus
from moe.dispatch.oracle import Oracle
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import SwiGLU
from moe.model.attention import Attention
from moe.model.flax_host import LinenMoE, NnxMoE
from moe.model.layer import MoE
from moe.model.multihash import MultiHash
from moe.model.transformer import Transformer
from moe.plan import Tokens
from moe.registry import Mistake
from moe.routers.hash import BALANCED, RANDOM
from moe.training import step

D, V = 4, 4
LAYER = MoE(num_experts=2, router=BALANCED, dispatch=Oracle(), experts=SwiGLU(3))
TOKENS = Tokens(jnp.arange(4, dtype=jnp.int32)[None])
X_BLD = jnp.ones((1, 4, D))
# Counts 5, 4, 3, 2 over two experts: 5 -> a, 4 -> b, 3 -> b (4 < 5), 2 -> a (5 < 7): 7 and 7.
CORPUS = Corpus(np.array([3, 5, 2, 4]), np.zeros(14, int))
REFUSED = (
    "Hash: is fitted to the training text, and there is none; give "
    "corpus=moe.data.counts.Corpus(count_V, token_S)"
)
MODEL = Transformer(
    vocab_size=V,
    num_layers=2,
    model_width=D,
    attention=Attention(num_heads=1, num_kv_heads=1, head_width=4),
    moe=LAYER,
    moe_layers=(0, 1),
)


def nnx_host(layer=LAYER, corpus=None):
    return NnxMoE(layer, D, V, corpus, rngs=nnx.Rngs(params=jax.random.key(0)))


def linen_params(layer=LAYER, corpus=None, key=None):
    host = LinenMoE(layer, V, corpus)
    return host.init(jax.random.key(0) if key is None else key, X_BLD, TOKENS)["params"]


def refusal(function, *args):
    """What it refuses them with; JAX may add a note of its own to the error."""
    with pytest.raises(Mistake) as caught:
        function(*args)
    return str(caught.value)


def is_balanced(table_VK):
    found = np.asarray(table_VK)[:, 0]
    return found[1] == found[2] != found[3] == found[0]


def test_without_a_text_they_refuse():
    assert refusal(nnx_host) == refusal(linen_params) == REFUSED
    assert refusal(step.init, Experiment(MODEL, train=Train(batch=1)), None) == REFUSED


def test_with_a_text_the_table_is_fitted():
    module = nnx_host(corpus=CORPUS)
    assert is_balanced(module.state.get_value()["router"]["state"]["expert_VK"])
    load_E = module(X_BLD, TOKENS)[1].counts.load_E
    np.testing.assert_array_equal(load_E, [2, 2])  # each id once
    params = linen_params(corpus=CORPUS)
    assert is_balanced(params["router"]["state"]["expert_VK"])
    without = LinenMoE(LAYER, V)  # parameters that are there need no text
    y_BLD, aux = jax.jit(without.apply)({"params": params}, X_BLD, TOKENS)
    np.testing.assert_array_equal(aux.counts.load_E, [2, 2])
    np.testing.assert_allclose(y_BLD, LAYER(params, X_BLD, TOKENS)[0], rtol=1e-6)


def test_another_key_gives_another_table():
    text = Corpus(np.ones(V), np.arange(V))
    tables = {
        tuple(np.asarray(linen_params(corpus=text, key=key)["router"]["state"]["expert_VK"]).flat)
        for key in jax.random.split(jax.random.key(5), 20)
    }
    assert len(tables) > 1  # of 6 even ones


def test_a_table_is_not_fitted_under_jit():
    def in_nnx(key):
        NnxMoE(LAYER, D, V, CORPUS, rngs=nnx.Rngs(params=key))

    for host in (lambda key: linen_params(corpus=CORPUS, key=key), in_nnx):
        line = refusal(jax.jit(host), jax.random.key(0))
        assert line == "Hash: is fitted on the host; make its parameters outside of jit"


def test_who_needs_no_text_is_as_before():
    random = MoE(num_experts=2, router=RANDOM, dispatch=Oracle(), experts=SwiGLU(3))
    params = jax.jit(lambda key: linen_params(random, key=key))(jax.random.key(0))
    assert params["router"]["state"]["expert_VK"].shape == (V, 1)
    module = nnx_host(MultiHash(num_experts=4, experts=SwiGLU(3)))
    table_VK = np.asarray(module.state.get_value()["router"]["state"]["expert_VK"])
    assert np.all(table_VK // 2 == [0, 1])  # the k-th choice is in the k-th half


def test_a_transformer_fits_each_layer_by_itself():
    V, text = 40, Corpus(np.ones(40), np.arange(40))
    model = MODEL.clone(vocab_size=V)
    params = jax.jit(model.init)(jax.random.key(0), TOKENS)["params"]
    fitted = model.fit(params, text, 0)["layers"]["block0"]["moe"]["router"]["state"]["expert_VK"]
    first, second = np.asarray(fitted)[:, :, 0]
    assert sum(first) == sum(second) == 20 and np.any(first != second)
    assert refusal(model.fit, params, None, 0) == REFUSED
    dense = model.clone(moe=None, moe_layers=())
    assert dense.fit(params, None, 0) is params
