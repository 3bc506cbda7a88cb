"""Dropless dispatch: sort the assignments by expert, multiply block by block, unsort.

MegaBlocks (arXiv 2211.15841) with the grouped products of `moe/kernels/`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe.devices.sharding import EXPERT
from moe.dispatch.contract import Dispatch, Stats, no_drops, serve_slots
from moe.dispatch.parallel import load, on_device
from moe.dispatch.rows import combine_rows, take_rows
from moe.experts.contract import mix
from moe.kernels.contract import Groups, Kernel
from moe.kernels.grouped import PerPlatform, grouped_product
from moe.order import sort_choices
from moe.plan import Choices, Mix, Slots


@dataclasses.dataclass(frozen=True)
class Ragged(Dispatch):
    """Serves every assignment; an expert's rows are rounded up to a tile of the kernel.

    Attributes:
      kernel: what multiplies rows by the matrix of their expert.
    """

    kernel: Kernel = PerPlatform()

    def __call__(self, plan, x_TD, pool):
        """Computes y_TD."""
        T, E = x_TD.shape[0], pool.E
        if isinstance(plan, Mix):
            return mix(plan, x_TD, pool), no_drops(plan, T, E)
        if isinstance(plan, Slots):
            return serve_slots(plan, x_TD, pool)
        order = sort_choices(plan, E)
        groups = Groups(order.size_E, plan.expert_TK.size, self.kernel)
        padding = (0, groups.padding)  # token T is nobody's: a row of zeros
        token_R = jnp.pad(order.token_R, padding, constant_values=T)
        rank_R = jnp.pad(order.rank_R, padding)
        x_RD = take_rows(x_TD, token_R, order.row_TK)
        y_RD = pool(x_RD, lambda x, w: grouped_product(groups, x, w))
        gate_TK = jnp.where(plan.expert_TK < E, plan.gate_TK, 0)  # rows of nobody hold anything
        y_TD = combine_rows(y_RD, gate_TK, token_R, rank_R, order.row_TK)
        stats = Stats(
            order.size_E.astype(jnp.float32),
            jnp.zeros(plan.gate_TK.shape),
            order.size_E.sum() / jnp.maximum(groups.computed, 1),
        )
        return y_TD, stats

    def exchange(self, plan, x_TD, pool, size):
        """Serves own experts for the tokens of all devices: exact, whatever the load.

        Tokens travel once, before they are copied to their k experts, and partial sums are
        scattered back: 2 (P - 1) / P rows of D per token of the expert axis, whatever k is.
        Cheaper than `all_to_all` for large k, dearer for many devices.
        """
        if not isinstance(plan, Choices):
            return super().exchange(plan, x_TD, pool, size)
        own = pool.E // size
        x_SD, expert_SK, gate_SK = (
            jax.lax.all_gather(a, EXPERT, tiled=True) for a in (x_TD, plan.expert_TK, plan.gate_TK)
        )
        mine_SK = on_device(expert_SK, own)
        gathered = Choices(mine_SK, jnp.where(mine_SK < own, gate_SK, 0))
        y_SD, stats = self(gathered, x_SD, dataclasses.replace(pool, E=own))
        y_TD = jax.lax.psum_scatter(y_SD, EXPERT, tiled=True)
        none_TK = jnp.zeros_like(plan.gate_TK, jnp.float32)
        return y_TD, Stats(load(plan, pool.E), none_TK, stats.slots_used)

    def rows(self, T, K, size):
        """All choices of the tokens of all devices, since all of them may be of its experts."""
        return size * T * K

    def check(self, path, tokens):
        """Raises Mistake for impossible tiles."""
        del tokens
        self.kernel.check(f"{path}.kernel")
