"""What the dispatchers share that send rows to other devices, where there is room for some."""

import dataclasses
from typing import ClassVar

import jax

from moe import sharding
from moe.dispatch.contract import Dispatch
from moe.dispatch.overflow import Drop, Overflow
from moe.dispatch.parallel import Parallel
from moe.dispatch.ragged import Ragged
from moe.dispatch.ring import Ring
from moe.experts import Experts
from moe.params import Params
from moe.routing import Choices, check_capacity


@dataclasses.dataclass(frozen=True)
class Limited(Parallel):
    """Expert parallelism with buffers of static size.

    Attributes:
      capacity_factor: room over the even share of rows. The size of the expert axis, or more, drops
        nothing; with less, what is dropped depends on the mesh.
      overflow: what becomes of rows without room; `exact` serves them by `ring`.
    """

    local: ClassVar[Dispatch] = Ragged()

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
        """Raises Mistake unless 0 < capacity_factor."""
        del tokens
        check_capacity(path, self.capacity_factor)
