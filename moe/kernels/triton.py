"""Grouped matrix product on NVIDIA GPUs: Pallas kernels in their Triton lowering.

Tiles never straddle two experts: each expert's rows are cut into tiles from its own first row, as
in MegaBlocks (arXiv 2211.15841) but without padding rows. `lax.ragged_dot` would multiply all
rows by all experts there.
"""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from moe.fields import AtLeast
from moe.kernels.contract import Kernel, PowerOfTwo, like


@dataclasses.dataclass(frozen=True)
class Triton(Kernel):
    """Tiles of `rows` x `columns` outputs, summed in float32 over slices of the contracted axis.

    Attributes:
      rows, columns: of a tile; powers of 2.
      depth: of a slice of 16-bit values; half of it for float32.
      band: tiles of rows that run beside each other before the next columns, to share reads.
      num_warps, num_stages: of a program: its warps and the depth of its software pipeline.
      interpret: run as plain XLA, on any platform; for tests.
    """

    rows: Annotated[int, PowerOfTwo(32)] = 128
    columns: Annotated[int, PowerOfTwo(32)] = 128
    depth: Annotated[int, PowerOfTwo(32)] = 64
    band: Annotated[int, AtLeast(1)] = 8
    num_warps: Annotated[int, PowerOfTwo(1, 16)] = 8
    num_stages: Annotated[int, AtLeast(1)] = 4
    interpret: bool = False

    def padding(self, R):
        """None: tiles are cut off at the last row."""
        del R
        return 0

    def computed(self, groups):
        """Rows in tiles of experts."""
        return jnp.sum(-(-groups.size_E // self.rows)) * self.rows

    def product(self, groups, x_RD, w_EDF, contract):
        """The grouped product; rows past the last group become 0."""
        return _product(self, groups.size_E, x_RD, w_EDF, contract)

    def weight_gradient(self, groups, x_RD, dy_RF):
        """The gradient of the weights, one program for each tile of each expert's matrix."""
        return _weight_gradient(self, groups.size_E, x_RD, dy_RF)

    def slice_of(self, dtype) -> int:
        """Contracted values of a slice: as many bytes for every dtype, since they share memory."""
        return max(16, self.depth * 2 // jnp.dtype(dtype).itemsize)

    def call(self, kernel, out: jax.ShapeDtypeStruct, programs: int, *arrays) -> jax.Array:
        """Runs the kernel on whole arrays, which stay where they are."""
        return pl.pallas_call(
            kernel,
            out_shape=out,
            grid=(programs,),
            in_specs=[pl.BlockSpec()] * len(arrays),
            out_specs=pl.BlockSpec(),
            compiler_params=triton.CompilerParams(
                num_warps=self.num_warps, num_stages=self.num_stages
            ),
            interpret=self.interpret,
        )(*arrays)


def tiles_of(size_E: jax.Array, R: int, rows: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Expert, first row and number of own rows of every tile; sizes are data, the count is not.

    Rows past the last group are tiles of expert E. At most one tile of each is not full, so
    ceil(R / rows) + E tiles suffice; those that nobody needs have no rows.
    """
    size_E = jnp.append(size_E, R - jnp.sum(size_E))
    end_E = jnp.cumsum(size_E)
    tiles_E = -(-size_E // rows)
    last_E = jnp.cumsum(tiles_E)
    tile = jnp.arange(-(-R // rows) + size_E.shape[0] - 1, dtype=jnp.int32)
    expert = jnp.searchsorted(last_E, tile, side="right", method="compare_all").astype(jnp.int32)
    expert = jnp.minimum(expert, size_E.shape[0] - 1)
    begin = (end_E - size_E)[expert] + (tile - (last_E - tiles_E)[expert]) * rows
    own = jnp.clip(end_E[expert] - begin, 0, rows)
    return expert, begin.astype(jnp.int32), own.astype(jnp.int32)


def _place(program, outer: int, inner: int, band: int):
    """(outer, inner) index of a program: `band` outer ones side by side, inner by inner."""
    first = lax.div(program, band * inner) * band
    count = jnp.minimum(outer - first, band)
    rest = lax.rem(program, band * inner)
    return first + lax.rem(rest, count), lax.div(rest, count)


def _span(begin, length: int, size: int):
    """Indices of a tile along an axis and, where the axis is no multiple of it, their mask."""
    index = begin + jnp.arange(length)
    return index, None if size % length == 0 else index < size


def _access(ref, rows, columns, expert=()):
    """Part of a matrix (an expert's) at rows x columns, and the mask of what exists, None: all.

    Args:
      rows, columns: indices and their mask, as of `_span`.
    """
    (row, row_mask), (column, column_mask), masks = rows, columns, []
    if row_mask is not None:
        masks.append(row_mask[:, None])
    if column_mask is not None:
        masks.append(column_mask[None, :])
    shape = (row.shape[0], column.shape[0])
    mask = jnp.broadcast_to(masks[0] & masks[-1], shape) if masks else None
    return ref.at[*expert, row[:, None], column[None, :]], mask


def _load(*place):
    part, mask = _access(*place)
    return triton.load(part, mask=mask, other=None if mask is None else 0.0)


def _dot(a, b, a_axis: int, b_axis: int):
    axes = (((a_axis,), (b_axis,)), ((), ()))
    return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _product(kernel: Triton, size_E, x_RD, w_EDF, contract: int) -> jax.Array:
    (R, D), E = x_RD.shape, w_EDF.shape[0]
    F = w_EDF.shape[2 - contract]
    rows, columns, depth = kernel.rows, kernel.columns, kernel.slice_of(x_RD.dtype)
    tiles = tiles_of(size_E, R, rows)
    row_tiles, column_tiles = tiles[0].shape[0], pl.cdiv(F, columns)

    def body(expert_ref, begin_ref, own_ref, x_ref, w_ref, y_ref):
        """One tile.

        Over budget: Pallas hands a kernel one reference for each array.
        """
        tile, part = _place(pl.program_id(0), row_tiles, column_tiles, kernel.band)
        expert, begin, own = expert_ref[tile], begin_ref[tile], own_ref[tile]
        row = begin + jnp.arange(rows)
        column = _span(part * columns, columns, F)
        here, mask = _access(y_ref, (row, jnp.arange(rows) < own), column)

        @pl.when((own > 0) & (expert == E))
        def _():
            triton.store(here, jnp.zeros((rows, columns), y_ref.dtype), mask=mask)

        @pl.when((own > 0) & (expert < E))
        def _():
            near = jnp.minimum(row, R - 1)  # rows of others are read, but not written

            def add(i, sums):
                k = _span(i * depth, depth, D)
                x = _load(x_ref, (near, None), k)
                d, f = (k, column) if contract == 0 else (column, k)
                w = _load(w_ref, d, f, (expert,))
                return sums + _dot(x, w, 1, contract)

            sums = jnp.zeros((rows, columns), jnp.float32)
            sums = lax.fori_loop(0, pl.cdiv(D, depth), add, sums)
            triton.store(here, sums.astype(y_ref.dtype), mask=mask)

    out = like((R, F), x_RD)
    return kernel.call(body, out, row_tiles * column_tiles, *tiles, x_RD, w_EDF)


@functools.partial(jax.jit, static_argnums=0)
def _weight_gradient(kernel: Triton, size_E, x_RD, dy_RF) -> jax.Array:
    D, F, E = x_RD.shape[1], dy_RF.shape[1], size_E.shape[0]
    height, width, depth = kernel.rows, kernel.columns, kernel.slice_of(x_RD.dtype)
    over, across = pl.cdiv(D, height), pl.cdiv(F, width)
    start_E = jnp.cumsum(size_E) - size_E

    def body(start_ref, size_ref, x_ref, dy_ref, dw_ref):
        program, tiles = pl.program_id(0), over * across
        expert = lax.div(program, tiles)
        d_tile, f_tile = _place(lax.rem(program, tiles), over, across, kernel.band)
        start, size = start_ref[expert], size_ref[expert]
        d = _span(d_tile * height, height, D)
        f = _span(f_tile * width, width, F)

        def add(i, sums, row_mask=None):
            row = start + i * depth + jnp.arange(depth), row_mask
            return sums + _dot(_load(x_ref, row, d), _load(dy_ref, row, f), 0, 0)

        def tail(i, sums):
            return add(i, sums, i * depth + jnp.arange(depth) < size)

        sums = jnp.zeros((height, width), jnp.float32)
        whole = lax.div(size, depth)
        sums = lax.fori_loop(0, whole, add, sums)
        sums = lax.fori_loop(whole, lax.div(size + depth - 1, depth), tail, sums)
        here, mask = _access(dw_ref, d, f, (expert,))
        triton.store(here, sums.astype(dw_ref.dtype), mask=mask)

    out = like((E, D, F), x_RD)
    return kernel.call(body, out, E * over * across, start_E, size_E, x_RD, dy_RF)
