"""Expert parallelism by exchange: each assignment travels to the device of its expert and back.

Dense all-to-all of buffers with room for `capacity_factor` times the even share of every pair of
devices (GShard, arXiv 2006.16668, with devices in the place of experts). Within a device nothing
is dropped, so a pair's room is shared by all experts there.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe.devices.sharding import EXPERT
from moe.dispatch.contract import Stats
from moe.dispatch.limited import Limited
from moe.dispatch.parallel import load
from moe.dispatch.rows import combine_rows, take_rows
from moe.order import CHOICE_MAJOR, Priority, owners, slot_rows
from moe.plan import Choices, capacity


@dataclasses.dataclass(frozen=True)
class AllToAll(Limited):
    """Sends rows to experts' devices and back, every pair of devices equally many.

    `capacity_factor` is the room of a pair over its even share.

    Attributes:
      priority: which of a device's rows get room first. With choice_major without room are the
        later choices first, and within a choice the later tokens.
    """

    priority: Priority = CHOICE_MAJOR

    def causal(self, K, T, E, devices):
        """If room goes to tokens in order, or nothing is dropped."""
        return self.priority.causal(K) or super().causal(K, T, E, devices)

    def exchange(self, plan, x_TD, pool, size):
        """Computes y_TD of this device's tokens."""
        plan = self.chosen(plan)
        T, K, E, own = x_TD.shape[0], plan.expert_TK.shape[1], pool.E, pool.E // size
        # Devices are to rows what experts are in `gather`: E and more is nobody's device.
        to_device = dataclasses.replace(plan, expert_TK=plan.expert_TK // own)
        # A token may have several experts on one device, so the cap is T * K and not T.
        C = min(T * K, capacity(self.capacity_factor, T * K, 1, size))
        row_TK = slot_rows(to_device, size, C, self.priority)
        token_R, rank_R = owners(row_TK, size * C)
        sent_RD = take_rows(x_TD, token_R, row_TK)
        expert_R = plan.expert_TK.at[token_R, rank_R].get(mode="fill", fill_value=E) % own
        expert_R = jnp.where(token_R < T, expert_R, own)

        def swap(a):
            return jax.lax.all_to_all(a, EXPERT, 0, 0, tiled=True)

        theirs = Choices(swap(expert_R)[:, None], jnp.ones((size * C, 1), jnp.float32))
        served_RD, stats = self.local(theirs, swap(sent_RD), dataclasses.replace(pool, E=own))
        back_RD = swap(served_RD)
        gate_TK = jnp.where(plan.expert_TK < E, plan.gate_TK, 0)
        y_TD = combine_rows(back_RD, gate_TK, token_R, rank_R, row_TK)
        left_TK = (row_TK >= size * C) & (plan.expert_TK < E)
        rest_TD, dropped_TK = self.answer(left_TK, plan, x_TD, pool, size)
        return y_TD + rest_TD, Stats(load(plan, E), dropped_TK, stats.slots_used)
