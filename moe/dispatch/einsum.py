"""One-hot dispatch with capacity, as in GShard (arXiv 2006.16668) and Switch (arXiv 2101.03961).

Runs on every device and under every sharding. Costs 4 * capacity_factor * K * group_size * D
FLOPs per token, so the group size, not the number of experts, decides whether it is cheap.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from moe.dispatch.contract import Grouped, Stats
from moe.experts.contract import mix
from moe.fields import Above
from moe.plan import Choices, Mix, Plan, Slots, capacity


@dataclasses.dataclass(frozen=True)
class Einsum(Grouped):
    """Masks over slots; assignments beyond an expert's slots are dropped.

    Dropped are the later choices first, and within a choice the later tokens.

    Attributes:
      capacity_factor: slots per expert over assignments per expert at perfect balance.
      group_size: tokens that are routed together and share slots; 0 is all of them.
    """

    capacity_factor: Annotated[float, Above(0)] = 1.25
    group_size: int = 256

    def __call__(self, plan, x_TD, pool):
        """Computes y_TD for one group."""
        T, E = x_TD.shape[0], pool.E
        masks, dropped_TK = self.masks(plan, T, E)
        slots_used = masks.dispatch_TEC.sum() / masks.dispatch_TEC[0].size
        load_E = plan.assigned_TE(T, E).sum(axis=0)
        return mix(masks, x_TD, pool), Stats(load_E, dropped_TK, slots_used)

    def masks(self, plan: Plan, T: int, E: int) -> tuple[Mix, jax.Array]:
        """The plan as dense masks over slots, and the drops, as in `Stats`."""
        if isinstance(plan, Mix):
            return plan, jnp.zeros((T, 1))
        if isinstance(plan, Slots):
            dispatch_TEC = jnp.moveaxis(jax.nn.one_hot(plan.token_EC, T), -1, 0)
            return Mix(dispatch_TEC, dispatch_TEC * plan.gate_EC[None]), jnp.zeros((T, 1))
        return choice_masks(plan, E, capacity(self.capacity_factor, T, plan.gate_TK.shape[1], E))

    def overhead(self, T, K, E, D):
        """Counts the dispatch and the combine product."""
        group = T // self.groups(T)
        return 4.0 * E * capacity(self.capacity_factor, group, K, E) * D


def choice_masks(plan: Choices, E: int, C: int) -> tuple[Mix, jax.Array]:
    """Gives each assignment the next free slot of its expert: first choices first, then tokens.

    Returns the masks (TEC, float32), and dropped_TK: 1 where an assignment found no slot, else 0.
    """
    T, K = plan.expert_TK.shape
    hot_KTE = jax.nn.one_hot(plan.expert_TK.T, E, dtype=jnp.int32)
    slot_KTE = jnp.cumsum(hot_KTE.reshape(K * T, E), axis=0).reshape(K, T, E) - 1
    slot_KT = jnp.sum(slot_KTE * hot_KTE, axis=-1)
    # one_hot gives a row of zeros to a slot >= C: the assignment is dropped.
    slot_KTC = jax.nn.one_hot(slot_KT, C)
    hot_KTE = hot_KTE.astype(jnp.float32)
    dispatch_TEC = jnp.einsum("KTE,KTC->TEC", hot_KTE, slot_KTC)
    combine_TEC = jnp.einsum("KTE,KTC,TK->TEC", hot_KTE, slot_KTC, plan.gate_TK)
    return Mix(dispatch_TEC, combine_TEC), (slot_KT >= C).T.astype(jnp.float32)
