"""Router losses against arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.fields import check_fields
from moe.routers.parts import losses


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


def formed(losses_, logits_TE, probability_TE, count_TE, **more):
    terms = losses_.terms(*map(jnp.asarray, (logits_TE, probability_TE, count_TE)), **more)
    return losses_(jax.tree.map(lambda a: a.sum(axis=0), terms), len(logits_TE))


def test_z_loss():
    # logsumexp(ln 3, ln 5) = ln 8; logsumexp(0, 0) = ln 2.
    logits_TE = np.array([[np.log(3.0), np.log(5.0)], [0, 0]], np.float32)
    half = np.full((2, 2), 0.5, np.float32)
    found, metrics = formed(losses.Losses(z_loss=0.1), logits_TE, half, half)
    want = (np.log(8) ** 2 + np.log(2) ** 2) / 2
    np.testing.assert_allclose(metrics["z_loss"], want, rtol=1e-6)
    np.testing.assert_allclose(found["z_loss"], 0.1 * want, rtol=1e-6)


def test_importance_and_load_are_squared_coefficients_of_variation():
    # Sums 3 and 1 have mean 2 and variance 1: 1/4.
    probability_TE = np.array([[0.7, 0.3], [0.8, 0.2], [0.9, 0.1], [0.6, 0.4]], np.float32)
    selected_TE = np.array([[1, 0], [1, 0], [0.5, 0.5], [0.5, 0.5]], np.float32)
    found, _ = formed(
        losses.Losses(importance=2.0, load=0.5),
        np.zeros((4, 2), np.float32),
        probability_TE,
        selected_TE,
        selected_TE=jnp.asarray(selected_TE),
    )
    np.testing.assert_allclose(found["importance"], 2 * 1 / 4, rtol=1e-5)
    np.testing.assert_allclose(found["load"], 0.5 * 1 / 4, rtol=1e-5)


def test_orthogonality_by_hand():
    # Columns (1, 0), (0, 2), (3, 3): cosines 0, 1/sqrt 2 twice; 4 of 9 entries off the diagonal.
    w_DE = jnp.array([[1.0, 0, 3], [0, 2, 3]])
    np.testing.assert_allclose(losses.overlap(w_DE), 0.5 * 4 / np.sqrt(2) / 9, rtol=1e-6)
    one = np.ones((2, 3), np.float32) / 3
    found, _ = formed(losses.Losses(orthogonality=3.0), one, one, one, w_DE=w_DE)
    np.testing.assert_allclose(found["orthogonality"], 1.5 * 4 / np.sqrt(2) / 9, rtol=1e-6)


def test_the_weight_of_the_balance_carries_no_gradient_and_multiplies():
    half = np.full((2, 2), 0.5, np.float32)

    def loss(weight):
        found, _ = formed(losses.Losses(load_balance=0.3), half, half, half, weight=weight)
        return found["load_balance"]

    np.testing.assert_allclose(loss(jnp.float32(2)), 0.6, rtol=1e-6)  # balance is 1
    assert float(jax.grad(loss)(jnp.float32(2))) == 0


@pytest.mark.parametrize("name", ["load_balance", "z_loss", "importance", "load", "orthogonality"])
def test_negative_weights_name_their_field(name):
    with pytest.raises(ValueError, match=f"^r.losses.{name}=-1.0: must be a number >= 0$"):
        check_fields(losses.Losses(**{name: -1.0}), "r.losses")
