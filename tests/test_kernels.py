"""The blocked grouped product against one product per expert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.kernels import blocked

D, F = 5, 7


def case(sizes, large, small):
    groups = blocked.Groups(jnp.array(sizes, jnp.int32), large, small)
    x_RD = jax.random.normal(jax.random.key(0), (sum(sizes) + groups.padding, D))
    w_EDF = jax.random.normal(jax.random.key(1), (len(sizes), D, F))
    return groups, x_RD, w_EDF


def reference(sizes, x_RD, w_EDF):
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return jnp.concatenate([x_RD[part] @ w_EDF[e] for e, part in enumerate(parts)])


@pytest.mark.parametrize("sizes", [(4, 4), (0, 9, 0), (13, 0, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize(
    "rows",
    [(4, 2), (16, 5), *(pytest.param(r, marks=pytest.mark.slow) for r in ((1, 1), (4, 3), (4, 4)))],
)
def test_product_and_gradients(sizes, rows):
    groups, x_RD, w_EDF = case(sizes, *rows)
    R = sum(sizes)

    def ours(x_RD, w_EDF):
        return jnp.sum(jnp.sin(blocked.grouped_product(groups, x_RD, w_EDF)[:R]))

    def theirs(x_RD, w_EDF):
        return jnp.sum(jnp.sin(reference(sizes, x_RD, w_EDF)))

    got, want = (jax.jit(jax.value_and_grad(f, (0, 1)))(x_RD, w_EDF) for f in (ours, theirs))
    # The gradient of padding rows has no meaning: nobody reads them.
    got = (got[0], (got[1][0][:R], got[1][1]))
    want = (want[0], (want[1][0][:R], want[1][1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, want)


def test_blocks_by_hand():
    # 11 rows of expert 0: one block of 4 twice, then 3 rows in blocks of 2: 2 and 1. None of
    # expert 1. 4 rows of expert 2 from row 11: one block of 4.
    groups = blocked.Groups(jnp.array([11, 0, 4]), 4, 2)

    def write(log, first, rows, own):
        i = log[-1, 0]
        return log.at[i].set(jnp.array([first, rows, own])).at[-1, 0].add(1)

    logs = [groups.each_block(e, write, jnp.zeros((7, 3), int)) for e in range(3)]
    np.testing.assert_array_equal(logs[0][:4], [[0, 4, 4], [4, 4, 4], [8, 2, 2], [10, 2, 1]])
    assert [int(log[-1, 0]) for log in logs] == [4, 0, 1]
    np.testing.assert_array_equal(logs[2][0], [11, 4, 4])
    assert int(groups.computed) == 4 + 4 + 2 + 2 + 4 and groups.padding == 4


def test_a_new_load_does_not_recompile():
    traces = []

    @jax.jit
    def product(size_E, x_RD, w_EDF):
        traces.append(1)
        return blocked.grouped_product(blocked.Groups(size_E, 4, 2), x_RD, w_EDF)

    _, x_RD, w_EDF = case((4, 4), 4, 2)
    for sizes in ((4, 4), (8, 0), (0, 8)):
        got = product(jnp.array(sizes, jnp.int32), x_RD, w_EDF)[:8]
        np.testing.assert_allclose(got, reference(sizes, x_RD, w_EDF), rtol=1e-5, atol=1e-5)
    assert len(traces) == 1
