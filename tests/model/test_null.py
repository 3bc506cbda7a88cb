"""Null experts in a layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.experts.feed_forward import SwiGLU
from moe.experts.null import NullExperts
from moe.fields import expression, identity
from moe.model.layer import MoE
from moe.routers.parts.losses import Losses
from moe.routers.top_k import TopK


# Equal logits: P = 1/8 for all, and ties choose experts 0 and 1, f = 1/2 each; with k = 8, f = 1/8.
# 8 sum_e weight_e f_e P_e over 4 feed-forward experts and 4 null ones of weight 0.75:
# two feed-forward experts alone, 8 (1/2 1/8 + 1/2 1/8) = 1; all of them, 8 (4 + 3) / 64 = 0.875.
@pytest.mark.parametrize(("k", "want"), [(2, 1.0), (8, 0.875)])
def test_null_experts_weigh_less_in_the_balance_loss(k, want):
    @jax.jit
    def losses():
        return [loss(NullExperts(loss_weight=weight)) for weight in (0.75, 1.0)]

    def loss(null):
        router = TopK(k=k, init_scale=0.0, losses=Losses(load_balance=1.0, z_loss=0.0))
        layer = MoE(4, router, experts=SwiGLU(4), null=null)
        params = layer.init(jax.random.key(0), 6, 10)
        return layer(params, jnp.ones((2, 3, 6)))[1].losses["load_balance"]

    np.testing.assert_allclose(losses(), [want, 1], rtol=1e-6)


def test_a_layer_from_before_its_weight_and_gate_norm_is_the_same():
    def lines(layer):
        return identity(expression(layer)).splitlines()

    new = lines(MoE(null=NullExperts()))
    assert not [line for line in new if "loss_weight" in line or "gate_norm" in line]
    for changed in (MoE(null=NullExperts(loss_weight=0.75)), MoE(gate_norm=True)):
        assert [
            line for line in lines(changed) if "loss_weight=0.75" in line or "gate_norm" in line
        ]
