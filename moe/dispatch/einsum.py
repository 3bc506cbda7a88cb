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
from moe.order import CHOICE_MAJOR, Priority
from moe.plan import Choices, Mix, Plan, Slots, capacity


@dataclasses.dataclass(frozen=True)
class Einsum(Grouped):
    """Masks over slots; assignments beyond an expert's slots are dropped.

    Attributes:
      capacity_factor: slots per expert over assignments per expert at perfect balance.
      group_size: tokens that are routed together and share slots; 0 is all of them.
      priority: who gets slots first. With choice_major dropped are the later choices first, and
        within a choice the later tokens.
    """

    capacity_factor: Annotated[float, Above(0)] = 1.25
    group_size: int = 256
    priority: Priority = CHOICE_MAJOR

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
        C = capacity(self.capacity_factor, T, plan.gate_TK.shape[1], E)
        return choice_masks(plan, E, C, self.priority)

    def overhead(self, T, K, E, D):
        """Counts the dispatch and the combine product."""
        group = T // self.groups(T)
        return 4.0 * E * capacity(self.capacity_factor, group, K, E) * D


def choice_masks(
    plan: Choices, E: int, C: int, priority: Priority = CHOICE_MAJOR
) -> tuple[Mix, jax.Array]:
    """Gives each assignment, by the priority, the next free slot of its expert.

    Returns the masks (TEC, float32), and dropped_TK: 1 where an assignment found no slot, else 0.
    """
    K = plan.expert_TK.shape[1]
    hot_RE = jax.nn.one_hot(priority.line_up(plan.expert_TK), E, dtype=jnp.int32)
    slot_RE = jnp.cumsum(hot_RE, axis=0) - 1
    slot_TK = priority.back(jnp.sum(slot_RE * hot_RE, axis=-1), K)
    # one_hot gives a row of zeros to a slot >= C: the assignment is dropped.
    slot_TKC = jax.nn.one_hot(slot_TK, C)
    hot_TKE = priority.back(hot_RE.astype(jnp.float32), K)
    dispatch_TEC = jnp.einsum("TKE,TKC->TEC", hot_TKE, slot_TKC)
    combine_TEC = jnp.einsum("TKE,TKC,TK->TEC", hot_TKE, slot_TKC, plan.gate_TK)
    return Mix(dispatch_TEC, combine_TEC), (slot_TK >= C).astype(jnp.float32)
