"""No router: every token reads every expert with equal weight, the k = E end of the scale."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from moe.routing import Choices, Router, Routing


@dataclasses.dataclass(frozen=True)
class Dense(Router):
    """All E experts for every token, each output weighted 1/E; nothing is learned."""

    learned: ClassVar[bool] = False

    def init(self, key, D, E, V):
        """Has no parameters."""
        del key, D, E, V
        return {}

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD: expert_TK lists every expert, gate_TK is 1/E."""
        del params, id_T, rng
        T = x_TD.shape[0]
        expert_TK = jnp.broadcast_to(jnp.arange(E, dtype=jnp.int32), (T, E))
        return Routing(Choices(expert_TK, jnp.full((T, E), 1 / E, jnp.float32)))

    def choices(self, E):
        """All of them."""
        return E
