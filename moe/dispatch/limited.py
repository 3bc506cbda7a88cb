"""What the dispatchers share that send rows to other devices, where there is room for some."""

import dataclasses
from typing import Annotated, ClassVar

import jax

from moe.devices import sharding
from moe.dispatch.contract import Dispatch
from moe.dispatch.overflow import Drop, Overflow
from moe.dispatch.ragged import Ragged
from moe.experts.contract import Pool
from moe.fields import Above
from moe.plan import Choices, Plan
from moe.registry import Mistake


class Parallel(Dispatch):
    """A dispatcher for token choice whose experts live on different devices.

    Attributes:
      local: serves the rows that arrive at a device, and everything on a single one.
    """

    local: ClassVar[Dispatch]

    def __call__(self, plan, x_TD, pool):
        """Computes y_TD as `local` does: here all experts are on one device."""
        return self.local(self.chosen(plan), x_TD, pool)

    def chosen(self, plan: Plan) -> Choices:
        """The plan; raises Mistake unless tokens chose."""
        if not isinstance(plan, Choices):
            raise Mistake(
                f"model.moe.dispatch={type(self).__name__}: serves token choice only, and this "
                f"router returns {type(plan).__name__}; take einsum, gather or ragged"
            )
        return plan


@dataclasses.dataclass(frozen=True)
class Limited(Parallel):
    """Expert parallelism with buffers of static size.

    Attributes:
      capacity_factor: room over the even share of rows. The size of the expert axis, or more, drops
        nothing; with less, what is dropped depends on the mesh.
      overflow: what becomes of rows without room; `exact` serves them as `ragged` does.
    """

    local: ClassVar[Dispatch] = Ragged()

    capacity_factor: Annotated[float, Above(0)] = 2.0
    overflow: Overflow = Drop()

    def causal(self, K, T, E, devices):
        """If nothing is dropped: by what becomes of overflow, or since there is room for all."""
        return not self.overflow.drops or self.capacity_factor >= devices or devices == 1

    def with_capacity(self, factor):
        """With that factor."""
        return dataclasses.replace(self, capacity_factor=factor)

    def rows(self, T, K, size):
        """The room."""
        return min(size, self.capacity_factor) * T * K if size > 1 else T * K

    def answer(
        self, left_TK: jax.Array, plan: Choices, x_TD: jax.Array, pool: Pool, size: int
    ) -> tuple[jax.Array, jax.Array]:
        """Outputs of the assignments left_TK that found no room, and the drops, as in `Stats`."""

        def serve(x_TD):
            return self.local.exchange(plan.only(left_TK, pool.E), x_TD, pool, size)[0]

        return self.overflow(left_TK, x_TD, serve, sharding.batch_axes())
