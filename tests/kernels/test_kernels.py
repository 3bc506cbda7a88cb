"""Every kernel of the grouped product against one product per expert; what each is lowered to."""

import contextlib
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.fields import check_fields
from moe.kernels.blocked import Blocked
from moe.kernels.contract import Groups
from moe.kernels.grouped import PerPlatform, grouped_product
from moe.kernels.mosaic import Mosaic, visits_of
from moe.kernels.triton import Triton, tiles_of

E, R, D, F = 4, 100, 40, 72  # no multiples of the tiles
SIZES = {
    "uniform": (25, 25, 25, 25),
    "zipf": (48, 24, 16, 12),
    "one takes all": (0, 100, 0, 0),
    "some empty": (0, 7, 0, 93),
    "rows of nobody": (3, 40, 0, 20),
    "nobody has rows": (0, 0, 0, 0),
}
KERNELS = {
    "blocked": Blocked(16, 5),
    "blocked, one size": Blocked(4, 4),
    "blocked, all at once": Blocked(1000, 64),
    "mosaic": Mosaic(32, 16, 32, 24, interpret=True),
    "mosaic, whole axes": Mosaic(16, 128, 128, 128, interpret=True),
    "triton": Triton(32, 32, 32, band=2, interpret=True),
    "per platform": PerPlatform(),
}
SLOW = ("blocked, one size", "blocked, all at once", "mosaic, whole axes")


@functools.partial(jax.jit, static_argnums=0)
def ours(kernel, size_E, x_RD, w_EDF, dy_RF):
    """y_RF, dx_RD and dw_EDF, the first two without padding."""
    groups = Groups(size_E, R, kernel)
    x, dy = (jnp.pad(a, ((0, groups.padding), (0, 0))) for a in (x_RD, dy_RF))
    y, gradients = jax.vjp(lambda x, w: grouped_product(groups, x, w), x, w_EDF)
    dx, dw = gradients(dy)
    return y[:R], dx[:R], dw


def theirs(sizes, x_RD, w_EDF, dy_RF):
    """The same for the rows of groups, in float64."""
    x, w, dy = (np.asarray(a, np.float64) for a in (x_RD, w_EDF, dy_RF))
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    y = np.concatenate([x[p] @ w[e] for e, p in enumerate(parts)])
    dx = np.concatenate([dy[p] @ w[e].T for e, p in enumerate(parts)])
    return y, dx, np.stack([x[p].T @ dy[p] for p in parts])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=pytest.mark.slow if name in SLOW else ())
        for name in KERNELS
        for dtype in (jnp.float32, jnp.bfloat16)
    ],
)
def test_product_and_gradients_under_every_load(name, dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((R, D), (E, D, F), (R, F))
    x, w, dy = (jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True))
    traces = ours._cache_size()
    for sizes in SIZES.values():
        S = sum(sizes)
        poisoned = (x.at[S:].set(jnp.nan), w, dy.at[S:].set(jnp.nan))
        got = ours(KERNELS[name], jnp.array(sizes, jnp.int32), *poisoned)
        want = theirs(sizes, x, w, dy)
        tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
        for a, b in zip((got[0][:S], got[1][:S], got[2]), want, strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(
                np.asarray(a, np.float64), b, atol=tolerance * (np.abs(b).max(initial=1))
            )
        if not isinstance(KERNELS[name], Blocked | PerPlatform):  # zeros, whatever was there
            assert not np.asarray(got[0][S:]).any() and not np.asarray(got[1][S:]).any()
    assert ours._cache_size() == traces + 1  # a new load compiles nothing


def test_rows_of_nobody_come_out_finite():
    # 3 of 8 rows belong to nobody; the tail block of the second expert runs into them.
    groups = Groups(jnp.array([3, 2]), 8, PerPlatform(other=Blocked(4, 4)))
    x_RD = jnp.ones((8 + groups.padding, 3))
    assert np.isfinite(grouped_product(groups, x_RD, jnp.ones((2, 3, 3)))).all()


def test_blocks_by_hand():
    # 11 rows of expert 0: one block of 4 twice, then 3 rows in blocks of 2: 2 and 1. None of
    # expert 1. 4 rows of expert 2 from row 11: one block of 4.
    groups = Groups(jnp.array([11, 0, 4]), 15, Blocked(4, 2))

    def write(log, first, rows, own):
        i = log[-1, 0]
        return log.at[i].set(jnp.array([first, rows, own])).at[-1, 0].add(1)

    empty = jnp.zeros((7, 3), int)
    logs = [groups.kernel.each_block(groups, e, write, empty) for e in range(3)]
    np.testing.assert_array_equal(logs[0][:4], [[0, 4, 4], [4, 4, 4], [8, 2, 2], [10, 2, 1]])
    assert [int(log[-1, 0]) for log in logs] == [4, 0, 1]
    np.testing.assert_array_equal(logs[2][0], [11, 4, 4])
    assert int(groups.computed) == 4 + 4 + 2 + 2 + 4 and groups.padding == 4


def test_tiles_of_triton_by_hand():
    # Tiles of 32: 40 rows are 32 and 8, none, 33 from row 40 are 32 and 1, the other 27 of 100
    # are nobody's, expert 3. ceil(100 / 32) + 3 = 7 tiles at most: two stay without rows.
    expert, begin, own = tiles_of(jnp.array([40, 0, 33]), 100, 32)
    np.testing.assert_array_equal(expert, [0, 0, 2, 2, 3, 3, 3])
    np.testing.assert_array_equal(begin[:5], [0, 32, 40, 72, 73])
    np.testing.assert_array_equal(own, [32, 8, 32, 1, 27, 0, 0])
    groups = Groups(jnp.array([40, 0, 33]), 100, Triton(rows=32))
    assert int(groups.computed) == 4 * 32 and groups.padding == 0


def test_visits_of_mosaic_by_hand():
    # Tiles of 32 are aligned: rows 0 to 39 touch tiles 0 and 1; the empty expert visits tile 1,
    # where its row would be; rows 40 to 72 touch 1 and 2. ceil(100 / 32) + 3 = 7 steps.
    expert, tile = visits_of(jnp.array([40, 0, 33]), 100, 32)
    np.testing.assert_array_equal(expert, [0, 0, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(tile, [0, 1, 1, 1, 2, 2, 2])


def gpu():
    """Names the GPU that JAX 0.12 must know to lower Triton; 0.10 needs none."""
    from jax import sharding

    if jax.version.__version_info__ < (0, 12):
        return contextlib.nullcontext()
    device = sharding.AbstractDevice("NVIDIA H100 80GB HBM3", None, "gpu")
    return sharding.use_abstract_mesh(sharding.AbstractMesh((), (), abstract_device=device))


def lowered(platform):
    """StableHLO of a grouped product and both gradients, with no such device at hand."""

    def both(size_E, x_RD, w_EDF):
        groups = Groups(size_E, 256, PerPlatform())
        y, gradients = jax.vjp(lambda x, w: grouped_product(groups, x, w), x_RD, w_EDF)
        return y, gradients(y)

    x, w = jnp.zeros((512, 64), jnp.bfloat16), jnp.zeros((4, 64, 96), jnp.bfloat16)
    traced = jax.jit(both).trace(jnp.full(4, 64, jnp.int32), x, w)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_each_platform_gets_its_own_kernel_and_no_other():
    texts = {platform: lowered(platform) for platform in ("cpu", "tpu")}
    with gpu(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Triton in Pallas, from JAX 0.12 on
        texts["cuda"] = lowered("cuda")
    marks = ("xla.gpu.triton", "tpu_custom_call", "chlo.ragged_dot", "stablehlo.dot_general")
    found = {p: [text.count(f"{mark}") > 0 for mark in marks] for p, text in texts.items()}
    assert found == {
        "cpu": [False, False, False, True],
        "tpu": [False, True, True, False],
        "cuda": [True, False, False, False],
    }
    assert texts["cuda"].count("custom_call @__gpu$xla.gpu.triton") == 3  # y, dx and dw
    assert texts["tpu"].count("custom_call @tpu_custom_call") == 2  # dx and dw


@pytest.mark.parametrize(
    ("kernel", "line"),
    [
        (Blocked(0), "k.block=0: must be >= 1"),
        (Blocked(8, 9), r"k.tail=9: must be in \[1, block=8\]"),
        (Mosaic(width=100), "k.width=100: must be a multiple of 128"),
        (Triton(rows=48), "k.rows=48: must be a power of 2, >= 32"),
        (Triton(num_warps=3), "k.num_warps=3: must be a power of 2, >= 1, <= 16"),
        (Triton(band=0), "k.band=0: must be >= 1"),
        (PerPlatform(cuda=Triton(depth=7)), "k.cuda.depth=7: must be a power of 2"),
    ],
)
def test_impossible_tiles_are_one_line(kernel, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        check_fields(kernel, "k")
        kernel.check("k")
