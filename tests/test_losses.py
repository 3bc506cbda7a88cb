"""Router losses against arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe import losses


@pytest.mark.parametrize("K", [1, 2, 3])
def test_load_balance_is_1_at_balance_for_every_k(K):
    # 8 tokens, 4 experts, 8K assignments: 2K each; P is 1/4 each, summed over tokens 2.
    value = losses.load_balance(jnp.full(4, 2.0 * K), jnp.full(4, 2.0), 8)
    np.testing.assert_allclose(value, 1.0, rtol=1e-6)


def test_load_balance_of_collapse_is_the_number_of_experts():
    # All on expert 0 with probability 1: 4 * (1 * 1).
    value = losses.load_balance(jnp.array([8.0, 0, 0, 0]), jnp.array([8.0, 0, 0, 0]), 8)
    np.testing.assert_allclose(value, 4.0, rtol=1e-6)


def test_load_balance_is_1_plus_squared_variation_where_p_equals_f():
    # f = P = (1/2, 1/4, 1/8, 1/8): 4 * (16 + 4 + 1 + 1)/64 = 1.375.
    f_E = jnp.array([4.0, 2, 1, 1])
    np.testing.assert_allclose(losses.load_balance(f_E, f_E, 8), 1.375, rtol=1e-6)


def test_counts_carry_no_gradient_and_no_load_is_no_nan():
    grad = jax.grad(losses.load_balance)(jnp.array([3.0, 1.0]), jnp.ones(2), 2)
    np.testing.assert_array_equal(grad, [0, 0])
    assert float(losses.load_balance(jnp.zeros(2), jnp.zeros(2), 1)) == 0


def test_z_loss_sum():
    # logsumexp(ln 3, ln 5) = ln 8; logsumexp(0, 0) = ln 2.
    logits_TE = jnp.array([[np.log(3.0), np.log(5.0)], [0, 0]])
    want = np.log(8) ** 2 + np.log(2) ** 2
    np.testing.assert_allclose(losses.z_loss_sum(logits_TE), want, rtol=1e-6)
