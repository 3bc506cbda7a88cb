"""Dropless dispatch: sort the assignments by expert, multiply block by block, unsort.

MegaBlocks (arXiv 2211.15841) with the grouped products of `moe/kernels/`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe.dispatch.contract import Dispatch, Stats, mix, no_drops, serve_slots
from moe.dispatch.parallel import gather_tokens
from moe.dispatch.rows import combine_rows, take_rows
from moe.kernels.contract import Groups, Kernel
from moe.kernels.grouped import PerPlatform, grouped_product
from moe.registry import Mistake
from moe.routing import Choices, Mix, Slots, first_rows


@dataclasses.dataclass(frozen=True)
class Ragged(Dispatch):
    """Serves every assignment; an expert's rows are rounded up to a tile of the kernel.

    Attributes:
      kernel: what multiplies rows by the matrix of their expert.
    """

    kernel: Kernel = PerPlatform()

    def __call__(self, plan, x_TD, experts, params, E):
        """Computes y_TD."""
        T = x_TD.shape[0]
        if isinstance(plan, Mix):
            return mix(plan, x_TD, experts, params), no_drops(plan, T, E)
        if isinstance(plan, Slots):
            return serve_slots(plan, x_TD, experts, params, E)
        order = sort_choices(plan, E)
        groups = Groups(order.size_E, plan.expert_TK.size, self.kernel)
        padding = (0, groups.padding)  # token T is nobody's: a row of zeros
        token_R = jnp.pad(order.token_R, padding, constant_values=T)
        rank_R = jnp.pad(order.rank_R, padding)
        x_RD = take_rows(x_TD, token_R, order.row_TK)
        y_RD = experts(params, x_RD, lambda x, w: grouped_product(groups, x, w))
        gate_TK = jnp.where(plan.expert_TK < E, plan.gate_TK, 0)  # rows of nobody hold anything
        y_TD = combine_rows(y_RD, gate_TK, token_R, rank_R, order.row_TK)
        stats = Stats(
            order.size_E.astype(jnp.float32),
            jnp.zeros(plan.gate_TK.shape[1]),
            order.size_E.sum() / jnp.maximum(groups.computed, 1),
        )
        return y_TD, stats

    def exchange(self, plan, x_TD, experts, params, E, size):
        """Gathers the tokens of all devices, as `ring` does: exact, whatever the load."""
        if not isinstance(plan, Choices):
            return super().exchange(plan, x_TD, experts, params, E, size)
        return gather_tokens(self, plan, x_TD, experts, params, E, size)

    def check(self, path, tokens):
        """Raises Mistake for impossible tiles."""
        del tokens
        self.kernel.check(f"{path}.kernel")


@dataclasses.dataclass(frozen=True)
class Order:
    """Assignments sorted by expert, stable: row r is choice rank_R[r] of token token_R[r]."""

    token_R: jax.Array
    rank_R: jax.Array
    row_TK: jax.Array  # where each assignment went, the inverse permutation
    size_E: jax.Array  # rows of each expert


def sort_choices(plan: Choices, E: int) -> Order:
    """Sorts by expert, then token, then choice, through one packed integer key."""
    T, K = plan.expert_TK.shape
    R = T * K
    if (E + 1) * R >= 2**31:
        raise Mistake(f"(E + 1) * T * K = {E + 1} * {T} * {K}: must be below 2^31 for the key")
    index_R = jnp.arange(R, dtype=jnp.int32)
    key_R = jnp.sort(plan.expert_TK.reshape(R) * R + index_R)
    source_R = key_R % R
    row_R = jnp.zeros(R, jnp.int32).at[source_R].set(index_R, unique_indices=True)
    size_E = jnp.diff(first_rows(key_R, E))
    return Order(source_R // K, source_R % K, row_R.reshape(T, K), size_E)
