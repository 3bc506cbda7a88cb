"""Expert parallelism by gathering tokens: every device reads all tokens and serves its experts.

Tokens travel once, before they are copied to their k experts, and partial sums are scattered back:
2 (P - 1) / P rows of D per token of the expert axis, whatever k is. Nothing is dropped. Cheaper
than `all_to_all` for large k, dearer for many devices.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe.dispatch.contract import Stats
from moe.dispatch.parallel import AXIS, Parallel, load, on_device
from moe.routing import Choices


@dataclasses.dataclass(frozen=True)
class Ring(Parallel):
    """All-gather tokens and plan over the expert axis, compute local experts, reduce-scatter."""

    def exchange(self, plan, x_TD, experts, params, E, size):
        """Computes y_TD of this device's tokens."""
        own = E // size
        x_SD, expert_SK, gate_SK = (
            jax.lax.all_gather(a, AXIS, tiled=True) for a in (x_TD, plan.expert_TK, plan.gate_TK)
        )
        mine_SK = on_device(expert_SK, own)
        gathered = Choices(mine_SK, jnp.where(mine_SK < own, gate_SK, 0))
        y_SD, stats = self.local(gathered, x_SD, experts, params, own)
        y_TD = jax.lax.psum_scatter(y_SD, AXIS, tiled=True)
        return y_TD, Stats(load(plan, E), jnp.zeros_like(stats.dropped_K), stats.slots_used)
