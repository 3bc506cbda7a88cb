"""Dropless dispatch: sort the assignments by expert, multiply block by block, unsort.

MegaBlocks (arXiv 2211.15841) without a kernel of its own. Both directions are gathers: the
backward pass of a permutation is a gather by its inverse, and autodiff's scatter-add is slow.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe.dispatch.contract import Dispatch, Stats, mix, no_drops
from moe.kernels import blocked
from moe.routing import Choices, Mix, Slots


@dataclasses.dataclass(frozen=True)
class Ragged(Dispatch):
    """Serves every assignment; an expert's rows are rounded up to a multiple of `block`.

    Attributes:
      block: rows that are multiplied at once.
    """

    block: int = 128

    def __call__(self, plan, x_TD, experts, params, E):
        """Computes y_TD."""
        T, D = x_TD.shape
        if isinstance(plan, Mix):
            return mix(plan, x_TD, experts, params), no_drops(plan, T, E)
        if isinstance(plan, Slots):
            return _serve_slots(plan, x_TD, experts, params), no_drops(plan, T, E)
        R = plan.expert_TK.size
        rows = min(self.block, R)
        order = sort_choices(plan, E)
        blocks = blocked.cut(order.size_E, R, rows)
        padding = jnp.zeros((blocks.padding, D), x_TD.dtype)
        x_RD = jnp.concatenate([take_rows(x_TD, order.token_R, order.row_TK), padding])
        y_RD = experts(params, x_RD, lambda x, w: blocked.grouped_product(blocks, x, w))
        gate_TK = jnp.where(plan.expert_TK < E, plan.gate_TK, 0)  # rows of nobody hold anything
        y_TD = combine_rows(y_RD, gate_TK, order.token_R, order.rank_R, order.row_TK)
        computed = blocks.count * rows
        stats = Stats(
            order.size_E.astype(jnp.float32),
            jnp.zeros(plan.gate_TK.shape[1]),
            order.size_E.sum() / jnp.maximum(computed, 1),
        )
        return y_TD, stats

    def overhead(self, T, K, E, D):
        """Moves rows by gathers, without a matrix product."""
        del T, K, E, D
        return 0.0

    def check(self, path, tokens):
        """Raises ValueError unless block >= 1."""
        del tokens
        if self.block < 1:
            raise ValueError(f"{path}.block={self.block}: must be >= 1")


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
    if E * R >= 2**31:
        raise ValueError(f"E * T * K = {E} * {T} * {K}: must be below 2^31 for the sort key")
    index_R = jnp.arange(R, dtype=jnp.int32)
    source_R = jnp.sort(plan.expert_TK.reshape(R) * R + index_R) % R
    row_R = jnp.zeros(R, jnp.int32).at[source_R].set(index_R, unique_indices=True)
    size_E = plan.assigned_TE(T, E).sum(axis=0).astype(jnp.int32)
    return Order(source_R // K, source_R % K, row_R.reshape(T, K), size_E)


def _sum_rows(y_RD: jax.Array, row_TK: jax.Array) -> jax.Array:
    """sum_k y[row_TK[:, k]]; unrolled, since a reduction over a short axis is slow on CPU."""
    return sum(jnp.take(y_RD, row_TK[:, k], axis=0) for k in range(row_TK.shape[1]))


@jax.custom_vjp
def take_rows(x_TD: jax.Array, token_R: jax.Array, row_TK: jax.Array) -> jax.Array:
    """x_RD[r] = x_TD[token_R[r]], whose gradient is a gather by the inverse row_TK."""
    del row_TK
    return jnp.take(x_TD, token_R, axis=0)


take_rows.defvjp(
    lambda x_TD, token_R, row_TK: (jnp.take(x_TD, token_R, axis=0), row_TK),
    lambda row_TK, dx_RD: (_sum_rows(dx_RD, row_TK), None, None),
)


def _weighted_sum(y_RD, gate_TK, row_TK):
    gate_TK = gate_TK.astype(y_RD.dtype)
    return sum(
        jnp.take(y_RD, row_TK[:, k], axis=0) * gate_TK[:, k, None] for k in range(row_TK.shape[1])
    )


@jax.custom_vjp
def combine_rows(
    y_RD: jax.Array, gate_TK: jax.Array, token_R: jax.Array, rank_R: jax.Array, row_TK: jax.Array
) -> jax.Array:
    """y_TD[t] = sum_k gate_TK[t, k] y_RD[row_TK[t, k]]; y_RD may end in padding rows."""
    del token_R, rank_R
    return _weighted_sum(y_RD, gate_TK, row_TK)


def _combine_forward(y_RD, gate_TK, token_R, rank_R, row_TK):
    return _weighted_sum(y_RD, gate_TK, row_TK), (y_RD, gate_TK, token_R, rank_R, row_TK)


def _combine_backward(residuals, dy_TD):
    y_RD, gate_TK, token_R, rank_R, row_TK = residuals
    gate_R = gate_TK[token_R, rank_R].astype(dy_TD.dtype)
    dy_RD = jnp.take(dy_TD, token_R, axis=0)
    R = token_R.shape[0]
    product_R = jnp.einsum("RD,RD->R", dy_RD, y_RD[:R], preferred_element_type=jnp.float32)
    dgate_TK = jnp.take(product_R, row_TK).astype(gate_TK.dtype)
    padding = ((0, y_RD.shape[0] - R), (0, 0))
    return jnp.pad(dy_RD * gate_R[:, None], padding), dgate_TK, None, None, None


combine_rows.defvjp(_combine_forward, _combine_backward)


def _serve_slots(plan: Slots, x_TD, experts, params):
    """Expert choice: gather each slot's token, apply, add back; empty slots read a zero row."""
    T, D = x_TD.shape
    source_TD = jnp.concatenate([x_TD, jnp.zeros((1, D), x_TD.dtype)])
    y_ECD = experts(params, jnp.take(source_TD, plan.token_EC, axis=0))
    weighted_ECD = y_ECD * plan.gate_EC[..., None].astype(y_ECD.dtype)
    return jnp.zeros_like(source_TD).at[plan.token_EC].add(weighted_ECD)[:T]
