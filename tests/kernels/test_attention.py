"""Causal attention in blocks against the plain form: values, gradients, what it may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.devices import sharding
from moe.kernels import attention
from moe.model.attention import attend


def inputs(B, L, H, J, A):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((B, L, H, A), (B, L, J, A), (B, L, J, A), (B, L, H, A))
    return [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]


def plain(query, key, value):
    return jax.nn.dot_product_attention(query, key, value, is_causal=True)


def out_and_gradients(function, query, key, value, upstream):
    @jax.jit
    def run(*arrays):
        out, back = jax.vjp(function, *arrays)
        return out, *back(upstream)

    return run(query, key, value)


# One block; several; a last one that is shorter; more positions than BLOCKS blocks of 32 hold.
@pytest.mark.parametrize(
    ("L", "H", "J"), [(7, 2, 2), (128, 4, 2), (75, 3, 1), (32 * 16 + 40, 2, 1)]
)
def test_blocks_equal_the_plain_form(L, H, J):
    arrays = inputs(2, L, H, J, 8)
    got = out_and_gradients(attention.blocked, *arrays)
    want = out_and_gradients(plain, *arrays)
    for mine, other in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-5)


def test_bfloat16_stays_as_near_to_float32_as_the_plain_form():
    arrays = inputs(2, 75, 4, 2, 8)
    low = [a.astype(jnp.bfloat16) for a in arrays]
    want = out_and_gradients(plain, *arrays)
    mine, other = (out_and_gradients(f, *low) for f in (attention.blocked, plain))
    for exact, a, b in zip(want, mine, other, strict=True):
        assert a.dtype == jnp.bfloat16
        off_a, off_b = (float(jnp.abs(x - exact).mean()) for x in (a, b))
        assert off_a < 1.5 * off_b


def test_scores_of_any_size_are_finite_and_later_keys_are_not_seen():
    query, key, value, upstream = inputs(1, 70, 1, 1, 4)
    found = out_and_gradients(attention.blocked, 1e4 * query, key, value, upstream)
    assert all(bool(jnp.isfinite(a).all()) for a in found)
    later = value.at[:, 40:].add(100.0)
    same = attention.blocked(query, key, later)[:, :40]
    np.testing.assert_array_equal(same, attention.blocked(query, key, value)[:, :40])
    first = attention.blocked(query, key, value)[:, 0]  # sees itself alone
    np.testing.assert_allclose(first, value[:, 0], rtol=1e-6)


def test_the_square_is_not_computed():
    # 4 blocks of 32 see 32, 64, 96 and 128 keys: 5/8 of the square, in 2 products of 2 x 8 FLOPs.
    query, key, value, _ = inputs(1, 128, 1, 1, 8)
    done = jax.jit(attention.blocked).lower(query, key, value).compile().cost_analysis()["flops"]
    full = jax.jit(plain).lower(query, key, value).compile().cost_analysis()["flops"]
    assert done - 128**2 * 5 / 8 * 32 < full - 128**2 * 32 + 0.1 * full
    assert done < 0.75 * full


def test_the_form_is_that_of_the_platform(monkeypatch):
    arrays = inputs(1, 64, 2, 1, 8)[:3]

    def made_for(platform):
        monkeypatch.setattr(sharding, "platform", lambda: platform)
        return str(jax.make_jaxpr(lambda *arrays: attend(*arrays))(*arrays))

    assert "custom_vjp" in made_for("cpu")
    assert "custom_vjp" not in made_for("cuda") and "custom_vjp" not in made_for("tpu")
