"""What dispatchers over several devices share: local experts, local tokens, summed statistics.

They run under `shard_map` over the mesh in use (`moe/sharding.py`): tokens are split over the batch
axes, experts over the expert axis, and every device sees its own part.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from moe import sharding
from moe.dispatch.contract import Dispatch, Stats
from moe.dispatch.ragged import Ragged
from moe.experts import Experts
from moe.routing import Choices, Params

AXIS = sharding.EXPERT_AXIS


class Parallel(Dispatch):
    """A dispatcher for token choice whose experts live on different devices."""

    local: ClassVar[Dispatch] = Ragged()

    def __call__(self, plan, x_TD, experts, params, E):
        """Computes y_TD; without an expert axis, as `local` does on one device."""
        if AXIS not in sharding.sizes():
            return self.local(plan, x_TD, experts, params, E)
        if not isinstance(plan, Choices):
            raise ValueError(
                f"model.moe.dispatch={type(self).__name__}: serves token choice only, and this "
                f"router returns {type(plan).__name__}; take einsum, gather or ragged"
            )
        T, size, parts = x_TD.shape[0], sharding.sizes()[AXIS], sharding.batch_parts()
        if E % size or T % parts:
            what, count, over = ("num_experts", E, size) if E % size else ("tokens", T, parts)
            raise ValueError(
                f"model.moe.dispatch={type(self).__name__}: {what}={count} must be divisible by "
                f"the {over} devices that hold them"
            )

        def body(plan, x_TD, params):
            y_TD, stats = self.exchange(plan, x_TD, experts, params, E, size)
            axes = sharding.batch_axes()
            load_E = jax.lax.psum(stats.load_E, axes)
            dropped_K = jax.lax.psum(stats.dropped_K, axes)
            return y_TD, Stats(load_E, dropped_K, jax.lax.pmean(stats.slots_used, axes))

        tokens, everywhere = jax.P(sharding.batch_axes()), jax.P()
        return jax.shard_map(
            body,
            in_specs=(tokens, tokens, jax.P(AXIS)),
            out_specs=(tokens, Stats(everywhere, everywhere, everywhere)),
        )(plan, x_TD, params)

    def exchange(
        self, plan: Choices, x_TD: jax.Array, experts: Experts, params: Params, E: int, size: int
    ) -> tuple[jax.Array, Stats]:
        """On one device: y_TD of its own tokens, and the statistics of these.

        params are those of its own E / size experts.
        """
        ...

    def overhead(self, T, K, E, D):
        """Moves rows by gathers and collectives, without a matrix product."""
        del T, K, E, D
        return 0.0


def load(plan: Choices, E: int) -> jax.Array:
    """load_E of the tokens of one device."""
    return plan.assigned_TE(plan.expert_TK.shape[0], E).sum(axis=0)


def on_device(expert: jax.Array, own: int) -> jax.Array:
    """Numbers of experts among this device's `own` ones; `own` for those of other devices."""
    mine = expert - own * jax.lax.axis_index(AXIS)
    return jnp.where((mine >= 0) & (mine < own), mine, own)
