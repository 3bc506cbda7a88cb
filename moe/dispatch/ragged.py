"""Dropless dispatch: sort the assignments by expert, multiply block by block, unsort.

MegaBlocks (arXiv 2211.15841) with the blocks of `moe/kernels/blocked.py`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe.dispatch.contract import Dispatch, Stats, mix, no_drops
from moe.dispatch.parallel import gather_tokens
from moe.dispatch.rows import combine_rows, take_rows
from moe.experts import Experts
from moe.kernels import blocked
from moe.routing import Choices, Mix, Params, Slots


@dataclasses.dataclass(frozen=True)
class Ragged(Dispatch):
    """Serves every assignment; an expert's rows are rounded up to a multiple of `tail`.

    Attributes:
      block: rows that are multiplied at once, as long as an expert has so many left.
      tail: rows of the smaller blocks that finish an expert.
    """

    block: int = 256
    tail: int = 64

    def __call__(self, plan, x_TD, experts, params, E):
        """Computes y_TD."""
        T, D = x_TD.shape
        if isinstance(plan, Mix):
            return mix(plan, x_TD, experts, params), no_drops(plan, T, E)
        if isinstance(plan, Slots):
            return serve_slots(plan, x_TD, experts, params), no_drops(plan, T, E)
        R = plan.expert_TK.size
        order = sort_choices(plan, E)
        groups = blocked.Groups(order.size_E, min(self.block, R), min(self.tail, R))
        padding = jnp.zeros((groups.padding, D), x_TD.dtype)
        x_RD = jnp.concatenate([take_rows(x_TD, order.token_R, order.row_TK), padding])
        y_RD = experts(params, x_RD, lambda x, w: blocked.grouped_product(groups, x, w))
        gate_TK = jnp.where(plan.expert_TK < E, plan.gate_TK, 0)  # rows of nobody hold anything
        y_TD = combine_rows(y_RD, gate_TK, order.token_R, order.rank_R, order.row_TK)
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

    def overhead(self, T, K, E, D):
        """Moves rows by gathers, without a matrix product."""
        del T, K, E, D
        return 0.0

    def check(self, path, tokens):
        """Raises ValueError unless 1 <= tail <= block."""
        del tokens
        if self.block < 1:
            raise ValueError(f"{path}.block={self.block}: must be >= 1")
        if not 1 <= self.tail <= self.block:
            raise ValueError(f"{path}.tail={self.tail}: must be in [1, block={self.block}]")


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
        raise ValueError(f"(E + 1) * T * K = {E + 1} * {T} * {K}: must be below 2^31 for the key")
    index_R = jnp.arange(R, dtype=jnp.int32)
    source_R = jnp.sort(plan.expert_TK.reshape(R) * R + index_R) % R
    row_R = jnp.zeros(R, jnp.int32).at[source_R].set(index_R, unique_indices=True)
    size_E = plan.assigned_TE(T, E).sum(axis=0).astype(jnp.int32)
    return Order(source_R // K, source_R % K, row_R.reshape(T, K), size_E)


def serve_slots(plan: Slots, x_TD: jax.Array, experts: Experts, params: Params) -> jax.Array:
    """Expert choice: gather each slot's token, apply, add back; empty slots read a zero row."""
    T, D = x_TD.shape
    source_TD = jnp.concatenate([x_TD, jnp.zeros((1, D), x_TD.dtype)])
    y_ECD = experts(params, jnp.take(source_TD, plan.token_EC, axis=0))
    weighted_ECD = y_ECD * plan.gate_EC[..., None].astype(y_ECD.dtype)
    return jnp.zeros_like(source_TD).at[plan.token_EC].add(weighted_ECD)[:T]
