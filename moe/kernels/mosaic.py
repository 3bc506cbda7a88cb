"""Grouped matrix product on TPUs: `lax.ragged_dot` forward, Pallas kernels for both gradients.

XLA for TPU multiplies each row by the matrix of its expert only. For the gradient of rows it would
first copy the weights transposed, and the gradient of weights costs it E times the work up to
JAX 0.10, so these two are kernels of ours, with the tiles of Megablox (arXiv 2211.15841): aligned
ones, which a new expert may begin in the middle of.
"""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu

from moe.kernels.contract import Kernel, MultipleOf, like


@dataclasses.dataclass(frozen=True)
class Mosaic(Kernel):
    """Tiles of `rows` x `width` outputs of dx and of `height` x `width` of dw, summed in float32.

    Attributes:
      rows: of a tile of sorted rows.
      height, width: of a tile of outputs; multiples of 128.
      depth: how much of F the gradient of rows contracts at once; where it is all of F, the
        weights stay in fast memory until the next expert.
      interpret: run the Pallas kernels as plain XLA, on any platform; for tests.
    """

    rows: Annotated[int, MultipleOf(128)] = 256
    height: Annotated[int, MultipleOf(128)] = 512
    width: Annotated[int, MultipleOf(128)] = 1024
    depth: Annotated[int, MultipleOf(128)] = 2048
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
        if contract == 0:
            return lax.ragged_dot(x_RD, w_EDF, groups.size_E)
        return _row_gradient(self, groups.size_E, x_RD, w_EDF)

    def weight_gradient(self, groups, x_RD, dy_RF):
        """The gradient of the weights."""
        return _weight_gradient(self, groups.size_E, x_RD, dy_RF)


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


def _neighbours(expert_ref, tile_ref, step, steps: int):
    """Whether a step is its expert's first, its expert's last, its tile's first, a repetition."""
    before, after = jnp.maximum(step - 1, 0), jnp.minimum(step + 1, steps - 1)
    new_expert = (step == 0) | (expert_ref[before] != expert_ref[step])
    new_tile = (step == 0) | (tile_ref[before] != tile_ref[step])
    done = (step == steps - 1) | (expert_ref[after] != expert_ref[step])
    return new_expert, done, new_tile, ~new_expert & ~new_tile


def _own_rows(start_ref, end_ref, expert, tile, rows: int):
    """Which rows of a tile belong to the expert, as a column."""
    row = tile * rows + lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
    return (row >= start_ref[expert]) & (row < end_ref[expert])


@functools.partial(jax.jit, static_argnums=0)
def _row_gradient(kernel: Mosaic, size_E, dy_RF, w_EDF) -> jax.Array:
    (R, F), (E, D, _) = dy_RF.shape, w_EDF.shape
    rows, width, depth = min(kernel.rows, R), min(kernel.width, D), min(kernel.depth, F)
    size_E = jnp.append(size_E, R - jnp.sum(size_E))  # rows past the last group become 0
    end_E = jnp.cumsum(size_E)
    expert, tile = visits_of(size_E, R, rows)
    steps, slices = expert.shape[0], pl.cdiv(F, depth)

    def body(expert_ref, tile_ref, start_ref, end_ref, dy_ref, w_ref, dx_ref, sums_ref):
        """One step.

        Over budget: Pallas hands a kernel one reference for each array.
        """
        step, part = pl.program_id(1), pl.program_id(2)
        e, t = expert_ref[step], tile_ref[step]
        new_tile, again = _neighbours(expert_ref, tile_ref, step, steps)[-2:]

        @pl.when(part == 0)
        def _():
            sums_ref[...] = jnp.zeros_like(sums_ref)

        @pl.when((e < E) & (end_ref[e] > start_ref[e]) & ~again)
        def _():
            dy, w = dy_ref[...], w_ref[...]
            if F % depth:  # what stands past the end of F is no number
                own = part * depth + lax.broadcasted_iota(jnp.int32, (1, depth), 1) < F
                dy, w = jnp.where(own, dy, 0), jnp.where(own, w, 0)
            axes = (((1,), (1,)), ((), ()))
            sums_ref[...] += lax.dot_general(dy, w, axes, preferred_element_type=jnp.float32)

        @pl.when((part == slices - 1) & ~again)
        def _():
            mine = _own_rows(start_ref, end_ref, e, t, rows)
            dx = jnp.where(mine & (e < E), sums_ref[...], 0).astype(dx_ref.dtype)
            dx_ref[...] = jnp.where(mine | new_tile, dx, dx_ref[...])

    return _call(
        kernel,
        body,
        like((R, D), dy_RF),
        (pl.cdiv(D, width), steps, slices),
        [
            pl.BlockSpec((rows, depth), lambda d, s, f, e, t, *_: (t[s], f)),
            pl.BlockSpec(
                (None, width, depth), lambda d, s, f, e, *_: (jnp.minimum(e[s], E - 1), d, f)
            ),
        ],
        pl.BlockSpec((rows, width), lambda d, s, f, e, t, *_: (t[s], d)),
        2 * R * D * F,
        (expert, tile, end_E - size_E, end_E, dy_RF, w_EDF),
    )


@functools.partial(jax.jit, static_argnums=0)
def _weight_gradient(kernel: Mosaic, size_E, x_RD, dy_RF) -> jax.Array:
    (R, D), F, E = x_RD.shape, dy_RF.shape[1], size_E.shape[0]
    rows, height, width = min(kernel.rows, R), min(kernel.height, D), min(kernel.width, F)
    end_E = jnp.cumsum(size_E)
    expert, tile = visits_of(size_E, R, rows)
    steps = expert.shape[0]

    def body(expert_ref, tile_ref, start_ref, end_ref, x_ref, dy_ref, dw_ref, sums_ref):
        """One step.

        Over budget: Pallas hands a kernel one reference for each array.
        """
        step = pl.program_id(2)
        e = expert_ref[step]
        new_expert, done, _, again = _neighbours(expert_ref, tile_ref, step, steps)

        @pl.when(new_expert)
        def _():
            sums_ref[...] = jnp.zeros_like(sums_ref)

        @pl.when((end_ref[e] > start_ref[e]) & ~again)
        def _():
            mine = _own_rows(start_ref, end_ref, e, tile_ref[step], rows)
            x, dy = (jnp.where(mine, a[...], 0) for a in (x_ref, dy_ref))
            axes = (((0,), (0,)), ((), ()))
            sums_ref[...] += lax.dot_general(x, dy, axes, preferred_element_type=jnp.float32)

        @pl.when(done)
        def _():
            dw_ref[...] = sums_ref[...].astype(dw_ref.dtype)

    return _call(
        kernel,
        body,
        like((E, D, F), x_RD),
        (pl.cdiv(D, height), pl.cdiv(F, width), steps),
        [
            pl.BlockSpec((rows, height), lambda d, f, s, e, t, *_: (t[s], d)),
            pl.BlockSpec((rows, width), lambda d, f, s, e, t, *_: (t[s], f)),
        ],
        pl.BlockSpec((None, height, width), lambda d, f, s, e, *_: (e[s], d, f)),
        2 * R * D * F,
        (expert, tile, end_E - size_E, end_E, x_RD, dy_RF),
    )


def _call(kernel: Mosaic, body, out, grid, in_specs, out_spec, flops: int, arrays) -> jax.Array:
    """Runs a kernel whose first four arrays steer it and which sums in one tile of float32.

    Over budget: the first is ours, the others are what `pallas_call` takes of both kernels.
    """
    sums = tuple(size for size in out_spec.block_shape if size is not None)
    return pl.pallas_call(
        body,
        out_shape=out,
        grid_spec=tpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=grid,
            in_specs=in_specs,
            out_specs=out_spec,
            scratch_shapes=[tpu.VMEM(sums, jnp.float32)],
        ),
        compiler_params=tpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=flops,
            bytes_accessed=sum(a.size * a.dtype.itemsize for a in (*arrays[4:], out)),
            transcendentals=0,
        ),
        interpret=kernel.interpret,
    )(*arrays)
