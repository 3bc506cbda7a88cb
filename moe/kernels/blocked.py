"""Grouped matrix product as loops over blocks of rows, expert by expert, in plain XLA.

Does the work of the rows that are there, rounded up to a small block per expert; runs everywhere.
On CPU `lax.ragged_dot` would do E times the work instead. Most rows of a busy expert go in large
blocks, which run near the peak of a matrix product; the rest in small ones, which waste little.
Each expert's matrix is taken out of the stack once.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
from jax import lax

from moe.fields import AtLeast
from moe.kernels.contract import Groups, Kernel, vary_like
from moe.registry import Mistake


@dataclasses.dataclass(frozen=True)
class Blocked(Kernel):
    """Large blocks as long as an expert has so many rows left, then small ones.

    Attributes:
      block: rows of a large block.
      tail: rows of a small one.
    """

    block: Annotated[int, AtLeast(1)] = 256
    tail: int = 64

    def blocks(self, R: int) -> tuple[int, int]:
        """Rows of a large and of a small block, none larger than all R rows."""
        return min(self.block, R), min(self.tail, R)

    def padding(self, R):
        """Blocks that start at the last row are read and written whole."""
        return max(self.blocks(R))

    def computed(self, groups):
        """Rows in blocks."""
        large, small = self.blocks(groups.rows)
        large_E = groups.size_E // large * large
        return jnp.sum(large_E - (large_E - groups.size_E) // small * small)

    def each_block(self, groups: Groups, e, body, carry):
        """body(carry, first row, rows of the block, own rows among them) over blocks of expert e.

        The number of rows of a block is static, the others are traced.
        """
        large, small = self.blocks(groups.rows)
        size, start = groups.size_E[e], groups.start_E[e]
        larges = size // large
        rest = start + larges * large
        smalls = -(-(start + size - rest) // small)

        def whole(i, carry):
            return body(carry, start + i * large, large, large)

        def tail(i, carry):
            first = rest + i * small
            return body(carry, first, small, jnp.minimum(small, start + size - first))

        return lax.fori_loop(0, smalls, tail, lax.fori_loop(0, larges, whole, carry))

    def product(self, groups, x_RD, w_EDF, contract):
        """The grouped product.

        Blocks run in order: what the last block of an expert writes past its own rows is written
        again by the next expert, and past the last row there is padding that nobody reads.
        """
        shape = (x_RD.shape[0], w_EDF.shape[2 - contract])
        y_RF = vary_like(jnp.zeros(shape, x_RD.dtype), x_RD)

        def of_expert(e, y_RF):
            w = lax.dynamic_index_in_dim(w_EDF, e, keepdims=False)

            def block(y_RF, first, rows, own):
                del own
                x = lax.dynamic_slice_in_dim(x_RD, first, rows)
                y = lax.dot_general(x, w, (((1,), (contract,)), ((), ())))
                return lax.dynamic_update_slice_in_dim(y_RF, y, first, 0)

            return self.each_block(groups, e, block, y_RF)

        return lax.fori_loop(0, w_EDF.shape[0], of_expert, y_RF)

    def weight_gradient(self, groups, x_RD, dy_RF):
        """The gradient of the weights, summed over blocks in float32."""
        E, D, F = groups.size_E.shape[0], x_RD.shape[1], dy_RF.shape[1]
        small = self.blocks(groups.rows)[1]

        def of_expert(e, dw_EDF):
            def block(dw, first, rows, own):
                x, dy = (lax.dynamic_slice_in_dim(a, first, rows) for a in (x_RD, dy_RF))
                if rows == small:  # rows of the next expert do not count
                    mine = lax.broadcasted_iota(jnp.int32, (rows, 1), 0) < own
                    x, dy = jnp.where(mine, x, 0), jnp.where(mine, dy, 0)
                axes = (((0,), (0,)), ((), ()))
                return dw + lax.dot_general(x, dy, axes, preferred_element_type=jnp.float32)

            dw = vary_like(jnp.zeros((D, F), jnp.float32), x_RD)
            dw = self.each_block(groups, e, block, dw).astype(x_RD.dtype)
            return lax.dynamic_update_index_in_dim(dw_EDF, dw, e, 0)

        zeros = vary_like(jnp.zeros((E, D, F), x_RD.dtype), x_RD)
        return lax.fori_loop(0, E, of_expert, zeros)

    def check(self, path):
        """Raises Mistake unless 1 <= tail <= block."""
        if not 1 <= self.tail <= self.block:
            raise Mistake(f"{path}.tail={self.tail}: must be in [1, block={self.block}]")
