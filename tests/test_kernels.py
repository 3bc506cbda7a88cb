"""The blocked grouped product against one product per expert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.kernels import blocked

D, F = 5, 7


def case(sizes, rows):
    R = sum(sizes)
    blocks = blocked.cut(jnp.array(sizes, jnp.int32), R, rows)
    x_RD = jax.random.normal(jax.random.key(0), (R + blocks.padding, D))
    w_EDF = jax.random.normal(jax.random.key(1), (len(sizes), D, F))
    return blocks, x_RD, w_EDF


def reference(sizes, x_RD, w_EDF):
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return jnp.concatenate([x_RD[part] @ w_EDF[e] for e, part in enumerate(parts)])


@pytest.mark.parametrize("sizes", [(4, 4), (0, 9, 0), (13, 0, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("rows", [1, 4, 16])
def test_product_and_gradients(sizes, rows):
    blocks, x_RD, w_EDF = case(sizes, rows)
    R = sum(sizes)

    def ours(x_RD, w_EDF):
        return jnp.sum(jnp.sin(blocked.grouped_product(blocks, x_RD, w_EDF)[:R]))

    def theirs(x_RD, w_EDF):
        return jnp.sum(jnp.sin(reference(sizes, x_RD, w_EDF)))

    got, want = (jax.jit(jax.value_and_grad(f, (0, 1)))(x_RD, w_EDF) for f in (ours, theirs))
    # The gradient of padding rows has no meaning: nobody reads them.
    got = (got[0], (got[1][0][:R], got[1][1]))
    want = (want[0], (want[1][0][:R], want[1][1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, want)


def test_blocks_by_hand():
    # 5 rows of expert 0, none of 1, 3 of 2, in blocks of 2: starts 0 2 4 | 5 7, sizes 2 2 1 2 1.
    blocks = blocked.cut(jnp.array([5, 0, 3]), 8, 2)
    assert int(blocks.count) == 5
    np.testing.assert_array_equal(blocks.start_M[:5], [0, 2, 4, 5, 7])
    np.testing.assert_array_equal(blocks.expert_M[:5], [0, 0, 0, 2, 2])
    np.testing.assert_array_equal(blocks.size_M[:5], [2, 2, 1, 2, 1])


def test_a_new_load_does_not_recompile():
    traces = []

    @jax.jit
    def product(size_E, x_RD, w_EDF):
        traces.append(1)
        return blocked.grouped_product(blocked.cut(size_E, 8, 4), x_RD, w_EDF)

    _, x_RD, w_EDF = case((4, 4), 4)
    for sizes in ((4, 4), (8, 0), (0, 8)):
        got = product(jnp.array(sizes, jnp.int32), x_RD, w_EDF)[:8]
        np.testing.assert_allclose(got, reference(sizes, x_RD, w_EDF), rtol=1e-5, atol=1e-5)
    assert len(traces) == 1
