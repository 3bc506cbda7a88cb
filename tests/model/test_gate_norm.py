"""The size of a layer's output at step 0."""

import jax
import jax.numpy as jnp
import pytest

from moe.experts.feed_forward import SwiGLU
from moe.experts.null import NullExperts
from moe.fields import check_fields
from moe.model.layer import MoE
from moe.model.multihash import MultiHash
from moe.plan import Tokens
from moe.routers.hash import Hash
from moe.routers.soft import Soft
from moe.routers.top_k import TopK

B, L, D, V = 4, 64, 64, 50


def sizes(router, E):
    """rms of the output, the metric that says so, and rms with gate_norm, over an expert's rms."""
    plain, normed = (MoE(E, router, experts=SwiGLU(16), gate_norm=on) for on in (False, True))

    @jax.jit
    def run():
        params = normed.init(jax.random.key(0), D, V)
        x_BLD = jax.random.normal(jax.random.key(1), (B, L, D))
        tokens = Tokens(jax.random.randint(jax.random.key(2), (B, L), 0, V))
        one = plain.experts(
            params["experts"], jnp.broadcast_to(x_BLD.reshape(1, -1, D), (E, B * L, D))
        )
        y_BLD, aux = plain(params, x_BLD, tokens)
        found = [jnp.sqrt(jnp.mean(jnp.square(a))) for a in (y_BLD, one)]
        return *found, aux.metrics["output_rms"], normed(params, x_BLD, tokens)[0].std()

    output, expert, metric, after = (float(value) for value in run())
    return output / expert, metric / expert, after / expert


# Largest of softmax(N(0, 1)^8): sqrt(E[g^2]) = 0.38; the two largest, renormalised: 0.74; hash: 1
# for one expert, sqrt(8) / 8 = 0.354 for eight.
@pytest.mark.parametrize(
    ("router", "E", "before"),
    [
        (TopK(k=1), 8, 0.38),
        (TopK(k=2), 8, 0.74),
        (TopK(k=8), 32, 0.40),
        (Hash(k=1), 8, 1.0),
        (Hash(k=8), 32, 0.354),
    ],
    ids=["top1", "top2", "fine-grained", "hash", "hash of 8"],
)
def test_the_output_starts_at_the_size_of_an_experts(router, E, before):
    output, metric, after = sizes(router, E)
    assert output == pytest.approx(before, rel=0.1)
    assert metric == pytest.approx(output, rel=1e-6)
    assert after == pytest.approx(1, rel=0.1)


def test_the_factor_is_state():
    layer = MoE(4, TopK(k=2), experts=SwiGLU(8), null=NullExperts(), gate_norm=True)
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), D, V))
    assert list(params["gate_norm"]) == ["state"]


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (MoE(router=Soft(), gate_norm=True), "must be False with router=Soft, which mixes"),
        (MultiHash(gate_norm=True), "must be False in a multihash layer: no gates"),
    ],
)
def test_where_no_gate_weighs_it_is_refused(layer, said):
    check_fields(layer, "model.moe")
    with pytest.raises(ValueError, match=f"^model.moe.gate_norm=True: {said}$"):
        layer.check("model.moe", 64)
