"""What the dispatchers share that send rows to other devices, where there is room for some."""

import dataclasses

import jax

from moe import sharding
from moe.dispatch.overflow import Drop, Overflow
from moe.dispatch.parallel import Parallel
from moe.dispatch.ring import Ring
from moe.experts import Experts
from moe.routing import Choices, Params, check_capacity


@dataclasses.dataclass(frozen=True)
class Limited(Parallel):
    """Expert parallelism with buffers of static size.

    Attributes:
      capacity_factor: room over the even share of rows; as many as there are devices drops nothing.
      overflow: what becomes of rows without room; `exact` serves them by `ring`.
    """

    capacity_factor: float = 2.0
    overflow: Overflow = Drop()

    def answer(
        self,
        left_TK: jax.Array,
        plan: Choices,
        x_TD: jax.Array,
        experts: Experts,
        params: Params,
        E: int,
        size: int,
    ) -> tuple[jax.Array, jax.Array]:
        """Outputs of the assignments left_TK that found no room, and drops by choice rank."""

        def serve(left, x_TD):
            return Ring().exchange(left, x_TD, experts, params, E, size)[0]

        return self.overflow(left_TK, plan, x_TD, E, serve, sharding.batch_axes())

    def check(self, path, tokens):
        """Raises ValueError unless 0 < capacity_factor."""
        del tokens
        check_capacity(path, self.capacity_factor)
