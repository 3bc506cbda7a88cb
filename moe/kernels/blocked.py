"""Grouped matrix product as loops over blocks of rows, expert by expert, in plain XLA.

Does the work of the rows that are there, rounded up to a small block per expert; runs everywhere.
On CPU `lax.ragged_dot` would do E times the work instead. Most rows of a busy expert go in large
blocks, which run near the peak of a matrix product; the rest in small ones, which waste little.
Each expert's matrix is taken out of the stack once.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax


@flax.struct.dataclass
class Groups:
    """Whose rows are whose, for rows sorted by expert.

    Attributes:
      size_E: rows of each expert (int32), in turn from row 0; their sum may be less than the rows.
      large, small: rows of a large and of a small block (static).
    """

    size_E: jax.Array
    large: int = flax.struct.field(pytree_node=False)
    small: int = flax.struct.field(pytree_node=False)

    @property
    def start_E(self) -> jax.Array:
        """First row of each expert."""
        return jnp.cumsum(self.size_E) - self.size_E

    @property
    def padding(self) -> int:
        """Rows that must follow the last row of a buffer which is read and written in blocks."""
        return max(self.large, self.small)

    @property
    def computed(self) -> jax.Array:
        """Rows that are multiplied, those that round up to a block included."""
        large_E = self.size_E // self.large * self.large
        return jnp.sum(large_E - (large_E - self.size_E) // self.small * self.small)

    def each_block(self, e, body, carry):
        """body(carry, first row, rows of the block, own rows among them) over blocks of expert e.

        The number of rows of a block is static, the others are traced.
        """
        size, start = self.size_E[e], self.start_E[e]
        larges = size // self.large
        rest = start + larges * self.large
        smalls = -(-(start + size - rest) // self.small)

        def large(i, carry):
            return body(carry, start + i * self.large, self.large, self.large)

        def small(i, carry):
            first = rest + i * self.small
            return body(carry, first, self.small, jnp.minimum(self.small, start + size - first))

        return lax.fori_loop(0, smalls, small, lax.fori_loop(0, larges, large, carry))


def _multiply(groups: Groups, x_RD: jax.Array, w_EDF: jax.Array, contract: int) -> jax.Array:
    """Rows times the matrix of their expert, contracting its axis `contract` (0 or 1).

    Blocks run in order: what the last block of an expert writes past its own rows is written
    again by the next expert, and past the last row there is padding that nobody reads.
    """
    y_RF = vary_like(jnp.zeros((x_RD.shape[0], w_EDF.shape[2 - contract]), x_RD.dtype), x_RD)

    def of_expert(e, y_RF):
        w = lax.dynamic_index_in_dim(w_EDF, e, keepdims=False)

        def block(y_RF, first, rows, own):
            del own
            x = lax.dynamic_slice_in_dim(x_RD, first, rows)
            y = lax.dot_general(x, w, (((1,), (contract,)), ((), ())))
            return lax.dynamic_update_slice_in_dim(y_RF, y, first, 0)

        return groups.each_block(e, block, y_RF)

    return lax.fori_loop(0, w_EDF.shape[0], of_expert, y_RF)


def vary_like(a: jax.Array, other: jax.Array) -> jax.Array:
    """The array, differing between devices wherever the other one does (inside `shard_map`)."""
    wanted, has = (jax.typeof(b).manual_axis_type.varying for b in (other, a))
    missing = tuple(wanted - has)
    return lax.pcast(a, missing, to="varying") if missing else a


def grouped_product(groups: Groups, x_RD: jax.Array, w_EDF: jax.Array) -> jax.Array:
    """Row r of expert e becomes x_r w_e; returns y_RF.

    x_RD ends in `groups.padding` rows that belong to nobody: they must be finite, and what comes
    out in their place has no meaning. Gradients with respect to x_RD and w_EDF.
    """
    return _grouped(groups, x_RD, vary_like(w_EDF, x_RD))


@jax.custom_vjp
def _grouped(groups, x_RD, w_EDF):
    return _multiply(groups, x_RD, w_EDF, 0)


def _forward(groups, x_RD, w_EDF):
    return _multiply(groups, x_RD, w_EDF, 0), (groups, x_RD, w_EDF)


def _backward(residuals, dy_RF):
    groups, x_RD, w_EDF = residuals

    def of_expert(e, dw_EDF):
        def block(dw, first, rows, own):
            x = lax.dynamic_slice_in_dim(x_RD, first, rows)
            dy = lax.dynamic_slice_in_dim(dy_RF, first, rows)
            if rows == groups.small:  # rows of the next expert do not count
                x = jnp.where(lax.broadcasted_iota(jnp.int32, (rows, 1), 0) < own, x, 0)
            return dw + lax.dot_general(x, dy, (((0,), (0,)), ((), ())))

        dw = groups.each_block(e, block, jnp.zeros_like(w_EDF[0]))
        return lax.dynamic_update_index_in_dim(dw_EDF, dw, e, 0)

    dw_EDF = lax.fori_loop(0, w_EDF.shape[0], of_expert, jnp.zeros_like(w_EDF))
    return None, _multiply(groups, dy_RF, w_EDF, 1), dw_EDF


_grouped.defvjp(_forward, _backward)
