"""The dense oracle: every expert on every token, then the plan's weights. Slow and obvious."""

import dataclasses

import jax.numpy as jnp

from moe.dispatch.contract import Dispatch, no_drops
from moe.experts.contract import mix
from moe.plan import Mix


@dataclasses.dataclass(frozen=True)
class Oracle(Dispatch):
    """E times the work; what every other dispatcher is tested against."""

    def __call__(self, plan, x_TD, pool):
        """Computes y_TD; drops nothing."""
        (T, D), E = x_TD.shape, pool.E
        if isinstance(plan, Mix):
            return mix(plan, x_TD, pool), no_drops(plan, T, E)
        y_ETD = pool(jnp.broadcast_to(x_TD, (E, T, D)))
        y_TD = jnp.einsum("TE,ETD->TD", plan.weight_TE(T, E), y_ETD.astype(jnp.float32))
        return y_TD.astype(x_TD.dtype), no_drops(plan, T, E)

    def overhead(self, T, K, E, D):
        """Counts the combine; the E/K-fold expert work is the oracle's own."""
        del T, K
        return 2.0 * E * D
