"""Grouped matrix product as a loop over blocks of rows, each with its expert's matrix.

Does the work of the rows that are there, rounded up to a block per expert; plain XLA, so it runs
everywhere. On CPU `lax.ragged_dot` would do E times the work instead.
"""

import functools
import math

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax


@flax.struct.dataclass
class Blocks:
    """Where each block starts and whose it is, for rows sorted by expert.

    Attributes:
      start_M, expert_M, size_M: first row, expert and number of own rows of each of at most M
        blocks; unused entries lie behind `count`.
      count: blocks in use, a scalar.
      rows: rows of one block (static).
    """

    start_M: jax.Array
    expert_M: jax.Array
    size_M: jax.Array
    count: jax.Array
    rows: int = flax.struct.field(pytree_node=False)

    @property
    def padding(self) -> int:
        """Rows that must follow the last row of a buffer which is read and written in blocks."""
        return self.rows


def cut(size_E: jax.Array, R: int, rows: int) -> Blocks:
    """Cuts R rows, size_E of them for each expert in turn, into blocks of at most `rows`."""
    E = size_E.shape[0]
    M = math.ceil(R / rows) + E
    blocks_E = -(-size_E // rows)
    last_E = jnp.cumsum(blocks_E)
    index_M = jnp.arange(M, dtype=jnp.int32)
    expert_M = jnp.searchsorted(last_E, index_M, side="right", method="compare_all")
    expert_M = jnp.minimum(expert_M, E - 1).astype(jnp.int32)
    within_M = index_M - (last_E - blocks_E)[expert_M]
    start_M = (jnp.cumsum(size_E) - size_E)[expert_M] + within_M * rows
    size_M = jnp.clip(size_E[expert_M] - within_M * rows, 0, rows)
    return Blocks(start_M, expert_M, size_M, last_E[-1], rows)


def _multiply(blocks: Blocks, x_RD: jax.Array, w_EDF: jax.Array, contract: int) -> jax.Array:
    """Rows times the matrix of their expert, contracting its axis `contract` (0 or 1).

    Blocks run in order: what the last block of an expert writes past its own rows is written
    again by the next expert, and past the last row there is padding that nobody reads.
    """
    out_width = w_EDF.shape[2 - contract]
    y_RF = jnp.zeros((x_RD.shape[0], out_width), x_RD.dtype)

    def body(i, y_RF):
        x = lax.dynamic_slice_in_dim(x_RD, blocks.start_M[i], blocks.rows)
        w = lax.dynamic_index_in_dim(w_EDF, blocks.expert_M[i], keepdims=False)
        y = lax.dot_general(x, w, (((1,), (contract,)), ((), ())))
        return lax.dynamic_update_slice_in_dim(y_RF, y, blocks.start_M[i], 0)

    return lax.fori_loop(0, blocks.count, body, y_RF)


@functools.partial(jax.custom_vjp, nondiff_argnums=())
def grouped_product(blocks: Blocks, x_RD: jax.Array, w_EDF: jax.Array) -> jax.Array:
    """Row r of expert e becomes x_r w_e; returns y_RF.

    x_RD ends in `blocks.padding` rows that belong to nobody: they must be finite, and what comes
    out in their place has no meaning. Gradients with respect to x_RD and w_EDF.
    """
    return _multiply(blocks, x_RD, w_EDF, 0)


def _forward(blocks, x_RD, w_EDF):
    return _multiply(blocks, x_RD, w_EDF, 0), (blocks, x_RD, w_EDF)


def _backward(residuals, dy_RF):
    blocks, x_RD, w_EDF = residuals

    def body(i, dw_EDF):
        x = lax.dynamic_slice_in_dim(x_RD, blocks.start_M[i], blocks.rows)
        dy = lax.dynamic_slice_in_dim(dy_RF, blocks.start_M[i], blocks.rows)
        own = lax.broadcasted_iota(jnp.int32, (blocks.rows, 1), 0) < blocks.size_M[i]
        dw = lax.dot_general(jnp.where(own, x, 0), dy, (((0,), (0,)), ((), ())))
        e = blocks.expert_M[i]
        old = lax.dynamic_index_in_dim(dw_EDF, e, keepdims=False)
        return lax.dynamic_update_index_in_dim(dw_EDF, old + dw, e, 0)

    dw_EDF = lax.fori_loop(0, blocks.count, body, jnp.zeros_like(w_EDF))
    return None, _multiply(blocks, dy_RF, w_EDF, 1), dw_EDF


grouped_product.defvjp(_forward, _backward)
