"""Expert parallelism by an exchange of as many rows as there are, without room per pair.

Sort by expert, tell every device the counts, send the runs (`moe/dispatch/traffic.py`), compute,
send them home. Only the rows that a device receives in all are bounded.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from moe.devices.sharding import EXPERT
from moe.dispatch.contract import Stats
from moe.dispatch.limited import Limited
from moe.dispatch.parallel import load
from moe.dispatch.rows import combine_rows, take_rows
from moe.dispatch.traffic import Traffic, exchange
from moe.order import sort_choices
from moe.plan import Choices


@dataclasses.dataclass(frozen=True)
class RaggedAllToAll(Limited):
    """Sends rows to experts' devices and back, as many as there are.

    `capacity_factor` is what a device can receive over what it sends. Without room are the rows of
    the last devices, and of these the last experts: a token's row may give way to a later token's
    whatever k is.
    """

    def exchange(self, plan, x_TD, pool, size):
        """Computes y_TD of this device's tokens."""
        plan = self.chosen(plan)
        E, own, R = pool.E, pool.E // size, plan.expert_TK.size
        rows = min(size * R, math.ceil(self.capacity_factor * R - 1e-9))
        order = sort_choices(plan, E)
        count_PE = jax.lax.all_gather(order.size_E, EXPERT)
        traffic = plan_traffic(count_PE, rows)
        sent_RD = take_rows(x_TD, order.token_R, order.row_TK)
        received_RD: Any = exchange(sent_RD, traffic, rows, EXPERT)
        theirs = Choices(received_experts(count_PE, rows)[:, None], jnp.ones((rows, 1)))
        served_RD, stats = self.local(theirs, received_RD, dataclasses.replace(pool, E=own))
        back_RD = exchange(served_RD, traffic.back, R, EXPERT)
        gate_TK = jnp.where(plan.expert_TK < E, plan.gate_TK, 0)
        y_TD = combine_rows(back_RD, gate_TK, order.token_R, order.rank_R, order.row_TK)
        mine, to_TK = jax.lax.axis_index(EXPERT), jnp.minimum(plan.expert_TK, E - 1) // own
        sent_TK = order.row_TK - traffic.start_PP[mine][to_TK] < traffic.count_PP[mine][to_TK]
        left_TK = ~sent_TK & (plan.expert_TK < E)
        rest_TD, dropped_TK = self.answer(left_TK, plan, x_TD, pool, size)
        return y_TD + rest_TD, Stats(load(plan, E), dropped_TK, stats.slots_used)


def plan_traffic(count_PE: jax.Array, rows: int) -> Traffic:
    """Runs sorted by receiver; they arrive in the order of senders, as far as there are rows."""
    P, E = count_PE.shape
    count_PP = count_PE.reshape(P, P, E // P).sum(axis=2)
    start_PP = jnp.cumsum(count_PP, axis=1) - count_PP
    place_PP = jnp.minimum(jnp.cumsum(count_PP, axis=0) - count_PP, rows)
    return Traffic(start_PP, place_PP, jnp.minimum(count_PP, rows - place_PP))


def received_experts(count_PE: jax.Array, rows: int) -> jax.Array:
    """The number, among this device's own experts, of the expert of each received row.

    Rows come by sender, then expert; one more than the last expert where no row arrived.
    """
    P, E = count_PE.shape
    own = E // P
    mine = jax.lax.axis_index(EXPERT) * own
    count_R = jax.lax.dynamic_slice_in_dim(count_PE, mine, own, axis=1).reshape(P * own)
    end_R = jnp.cumsum(count_R)
    run_R = jnp.searchsorted(end_R, jnp.arange(rows), side="right")
    return jnp.where(run_R < P * own, run_R % own, own).astype(jnp.int32)
