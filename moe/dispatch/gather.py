"""Capacity without masks: slots hold indices, tokens travel by gathers.

The same slots and drops as `einsum`, and none of its FLOPs: cost does not grow with the group.
V-MoE's index dispatch (arXiv 2106.05974) and the "scatter" forms of Switch (2101.03961).
"""

import dataclasses
import functools
from typing import Annotated

import jax.numpy as jnp

from moe.devices import sharding
from moe.dispatch.contract import Grouped, Stats, elsewhere, no_drops, serve_slots
from moe.dispatch.overflow import Drop, Exact, Overflow
from moe.dispatch.ragged import Ragged
from moe.dispatch.rows import combine_rows, take_rows
from moe.experts.contract import mix
from moe.fields import Above
from moe.order import CHOICE_MAJOR, Priority, owners, slot_rows
from moe.plan import Mix, Slots, capacity
from moe.registry import Mistake


@dataclasses.dataclass(frozen=True)
class Gather(Grouped):
    """Every expert computes C slots.

    Attributes:
      capacity_factor: slots per expert over assignments per expert at perfect balance.
      overflow: what becomes of assignments without a slot; `exact` serves them by `ragged`, and
        wants one group.
      group_size: tokens that are routed together and share slots; 0 is all of them, which no mesh
        can split.
      priority: who gets slots first. With choice_major without a slot are the later choices first,
        and within a choice the later tokens.
    """

    capacity_factor: Annotated[float, Above(0)] = 1.25
    overflow: Overflow = Drop()
    group_size: int = 0
    priority: Priority = CHOICE_MAJOR

    def causal(self, K, T, E, devices):
        """As all with slots, and if nothing is dropped."""
        return not self.overflow.drops or super().causal(K, T, E, devices)

    def __call__(self, plan, x_TD, pool):
        """Computes y_TD."""

        def rest(left, x_TD):
            return Ragged()(left, x_TD, pool)[0]

        return self._served(plan, x_TD, pool, rest)

    def exchange(self, plan, x_TD, pool, size):
        """Sends slots to the devices of their experts; what has none goes as with `ragged`."""

        def rest(left, x_TD):
            return Ragged().exchange(left, x_TD, pool, size)[0]

        return self._served(plan, x_TD, elsewhere(pool), rest, sharding.batch_axes())

    def _served(self, plan, x_TD, pool, rest, axes=()):
        (T, D), E = x_TD.shape, pool.E
        if isinstance(plan, Mix):
            return mix(plan, x_TD, pool), no_drops(plan, T, E)
        if isinstance(plan, Slots):
            return serve_slots(plan, x_TD, pool)
        K = plan.gate_TK.shape[1]
        C = capacity(self.capacity_factor, T, K, E)
        row_TK = slot_rows(plan, E, C, self.priority)
        token_R, rank_R = owners(row_TK, E * C)
        x_RD = take_rows(x_TD, token_R, row_TK)
        y_RD = pool(x_RD.reshape(E, C, D)).reshape(E * C, D)
        gate_TK = jnp.where(plan.expert_TK < E, plan.gate_TK, 0)
        y_TD = combine_rows(y_RD, gate_TK, token_R, rank_R, row_TK)
        left_TK = (row_TK == E * C) & (plan.expert_TK < E)
        serve = functools.partial(rest, plan.only(left_TK, E))
        rest_TD, dropped_TK = self.overflow(left_TK, x_TD, serve, axes)
        load_E = plan.assigned_TE(T, E).sum(axis=0)
        return y_TD + rest_TD, Stats(load_E, dropped_TK, jnp.mean(token_R < T, dtype=jnp.float32))

    def check(self, path, tokens):
        """Raises Mistake as all with groups do, and for groups whose overflow is answered."""
        super().check(path, tokens)
        if isinstance(self.overflow, Exact) and 0 < self.group_size < tokens:
            raise Mistake(
                f"{path}.group_size={self.group_size}: must be 0, one group, with overflow=exact"
            )
