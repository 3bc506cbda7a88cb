"""Controls that stand between learned routers and hash layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.routers.stability import Frozen
from moe.routers.token_table import TokenTable
from moe.routers.top_k import TopK
from tests.fakes.routed import NO_IDS, E, params_of, skewed


def test_even_weights_keep_the_gradient_of_the_score():
    # softmax(ln 1, ln 2, ln 5) = (1, 2, 5) / 8: the choice is expert 2, which weighs scale / k.
    def gate(logits, weigh, k):
        router = TopK(k=k, weigh=weigh, renormalize=False, scale=3.0)
        plan = router({"w_DE": jnp.eye(3)}, logits[None], jnp.zeros(1, jnp.int32), 3, None).plan
        return plan.gate_TK[0]

    logits = jnp.log(jnp.array([1.0, 2.0, 5.0]))
    np.testing.assert_allclose(gate(logits, "even", 1), [3.0], rtol=1e-6)
    np.testing.assert_allclose(gate(logits, "even", 2), [1.5, 1.5], rtol=1e-6)
    # 3 d p_2 / d z = 3 p_2 (e_2 - p) = 15/8 (-1/8, -2/8, 3/8), as without.
    for weigh in ("score", "even"):
        slope = jax.grad(lambda z, weigh=weigh: gate(z, weigh, 1)[0])(logits)
        np.testing.assert_allclose(slope, np.array([-15, -30, 45]) / 64, rtol=1e-5)
    # A frozen router of even weights is a hash of the hidden state.
    frozen = Frozen(k=1, weigh="even")
    plan = frozen(params_of(frozen), skewed(), NO_IDS, E, None).plan
    np.testing.assert_allclose(plan.gate_TK, 1.0, rtol=1e-6)


def test_a_token_table_routes_by_the_id_alone_and_learns():
    router = TokenTable(k=1, init_scale=2.0)
    params = router.init(jax.random.key(0), 8, 3, 400)
    assert set(params) == {"logits_VE"} and params["logits_VE"].shape == (400, 3)
    # 1,200 numbers of standard deviation 2: their own has an error of 2 / sqrt(2400) = 0.04.
    assert float(params["logits_VE"].std()) == pytest.approx(2.0, abs=0.2)
    params = {"logits_VE": jnp.log(jnp.array([[1.0, 2.0, 5.0], [5.0, 2.0, 1.0]]))}
    id_T = jnp.array([1, 0, 1, 9])  # 9 is above the table: its last row

    def gates(params, x_TD):
        return router(params, x_TD, id_T, 3, None).plan

    plan = gates(params, jnp.ones((4, 8)))
    np.testing.assert_array_equal(plan.expert_TK[:, 0], [0, 2, 0, 0])
    np.testing.assert_allclose(plan.gate_TK[:, 0], 5 / 8, rtol=1e-6)
    other = gates(params, -7.0 * jnp.ones((4, 8)))
    np.testing.assert_array_equal(plan.expert_TK, other.expert_TK)
    slope = jax.grad(lambda p: gates(p, jnp.ones((4, 8))).gate_TK.sum())(params)["logits_VE"]
    # Row 0 is read once: p_2 (e_2 - p) = 5/8 (-1/8, -2/8, 3/8); row 1 three times.
    np.testing.assert_allclose(slope[0], np.array([-5, -10, 15]) / 64, rtol=1e-5)
    np.testing.assert_allclose(slope[1], 3 * np.array([15, -10, -5]) / 64, rtol=1e-5)
