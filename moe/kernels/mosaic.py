"""Grouped matrix product on TPUs: `lax.ragged_dot`, and a Pallas kernel for the weight gradient.

XLA for TPU multiplies each row by the matrix of its expert only. The weight gradient, in turn, it
computes with E times the work up to JAX 0.10, so that one is a kernel of ours, with the tiles of
Megablox (arXiv 2211.15841): aligned ones, which a new expert may begin in the middle of.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu

from moe.kernels.contract import Kernel, like


@dataclasses.dataclass(frozen=True)
class Mosaic(Kernel):
    """XLA forward and for the gradient of rows; tiles of `height` x `width` of dw_EDF.

    Attributes:
      rows: that are added to a tile of dw at once.
      height, width: of a tile of dw, along D and F; multiples of 128.
      interpret: run the Pallas kernel as plain XLA, on any platform; for tests.
    """

    rows: int = 256
    height: int = 512
    width: int = 512
    interpret: bool = False

    def padding(self, R):
        """None."""
        del R
        return 0

    def computed(self, groups):
        """Rows of experts: how XLA tiles them is its own business."""
        return jnp.sum(groups.size_E)

    def product(self, groups, x_RD, w_EDF, contract):
        """The grouped product; rows past the last group become 0."""
        w_EDF = w_EDF.swapaxes(1, 2) if contract else w_EDF
        return lax.ragged_dot(x_RD, w_EDF, groups.size_E)

    def weight_gradient(self, groups, x_RD, dy_RF):
        """The gradient of the weights, summed in float32 in fast memory."""
        return _weight_gradient(self, groups.size_E, x_RD, dy_RF)

    def check(self, path):
        """Raises ValueError for tiles that the hardware has not."""
        for name in ("rows", "height", "width"):
            value = getattr(self, name)
            if value < 128 or value % 128:
                raise ValueError(f"{path}.{name}={value}: must be a multiple of 128")


def visits_of(size_E: jax.Array, R: int, rows: int) -> tuple[jax.Array, jax.Array]:
    """Expert and row tile of every step; each expert visits all tiles that hold a row of it.

    An expert without rows visits one tile, so that its gradient is written. The count of steps is
    static: ceil(R / rows) + E; the last expert repeats its last tile for those that are left.
    """
    end_E = jnp.cumsum(size_E)
    first_E = jnp.minimum((end_E - size_E) // rows, pl.cdiv(R, rows) - 1)
    count_E = jnp.where(size_E > 0, -(-end_E // rows) - first_E, 1)
    last_E = jnp.cumsum(count_E)
    step = jnp.arange(pl.cdiv(R, rows) + size_E.shape[0], dtype=jnp.int32)
    expert = jnp.searchsorted(last_E, step, side="right", method="compare_all")
    expert = jnp.minimum(expert, size_E.shape[0] - 1).astype(jnp.int32)
    visit = jnp.minimum(step - (last_E - count_E)[expert], count_E[expert] - 1)
    return expert, (first_E[expert] + visit).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def _weight_gradient(kernel: Mosaic, size_E, x_RD, dy_RF) -> jax.Array:
    (R, D), F, E = x_RD.shape, dy_RF.shape[1], size_E.shape[0]
    rows, height, width = (
        min(a, b)
        for a, b in zip((kernel.rows, kernel.height, kernel.width), (R, D, F), strict=True)
    )
    expert, tile = visits_of(size_E, R, rows)
    end_E = jnp.cumsum(size_E)
    steps = expert.shape[0]

    def body(expert_ref, tile_ref, start_ref, end_ref, x_ref, dy_ref, dw_ref, sums_ref):
        step = pl.program_id(2)
        e = expert_ref[step]
        before, after = jnp.maximum(step - 1, 0), jnp.minimum(step + 1, steps - 1)
        new = (step == 0) | (expert_ref[before] != e)
        done = (step == steps - 1) | (expert_ref[after] != e)
        again = (step > 0) & ~new & (tile_ref[before] == tile_ref[step])

        @pl.when(new)
        def _():
            sums_ref[...] = jnp.zeros_like(sums_ref)

        @pl.when((end_ref[e] > start_ref[e]) & ~again)
        def _():
            row = tile_ref[step] * rows + lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
            mine = (row >= start_ref[e]) & (row < end_ref[e])
            x, dy = (jnp.where(mine, a[...], 0) for a in (x_ref, dy_ref))
            axes = (((0,), (0,)), ((), ()))
            sums_ref[...] += lax.dot_general(x, dy, axes, preferred_element_type=jnp.float32)

        @pl.when(done)
        def _():
            dw_ref[...] = sums_ref[...].astype(dw_ref.dtype)

    return pl.pallas_call(
        body,
        out_shape=like((E, D, F), x_RD),
        grid_spec=tpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(pl.cdiv(D, height), pl.cdiv(F, width), steps),
            in_specs=[
                pl.BlockSpec((rows, height), lambda d, f, s, e, t, *_: (t[s], d)),
                pl.BlockSpec((rows, width), lambda d, f, s, e, t, *_: (t[s], f)),
            ],
            out_specs=pl.BlockSpec((None, height, width), lambda d, f, s, e, *_: (e[s], d, f)),
            scratch_shapes=[tpu.VMEM((height, width), jnp.float32)],
        ),
        compiler_params=tpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * R * D * F,
            bytes_accessed=x_RD.dtype.itemsize
            * (R * D * pl.cdiv(F, width) + R * F * pl.cdiv(D, height) + E * D * F),
            transcendentals=0,
        ),
        interpret=kernel.interpret,
    )(expert, tile, end_E - size_E, end_E, x_RD, dy_RF)
