"""Which router sits at which depth: one for all MoE layers, or another one in some of them."""

import dataclasses
from typing import ClassVar, Protocol

from moe.registry import Mistake
from moe.routers.contract import Router
from moe.routers.hash import BALANCED


class Layout(Protocol):
    """Gives each MoE layer its router."""

    kind: ClassVar[str] = "layout"

    def router(self, n: int, layers: int, default: Router) -> Router:
        """The router of MoE layer n of `layers`; `default` is that of `model.moe`."""
        ...

    def check(self, path: str, layers: int, num_experts: int) -> None:
        """Raises Mistake, one line that starts with `path`, for impossible fields."""
        ...


@dataclasses.dataclass(frozen=True)
class First(Layout):
    """The first MoE layers have a router of their own.

    Attributes:
      router_there: the router of those layers.
      layers: how many.
    """

    router_there: Router = BALANCED
    layers: int = 1

    def router(self, n, layers, default):
        """Theirs in MoE layers 0 ... layers - 1."""
        del layers
        return self.router_there if n < self.layers else default

    def check(self, path, layers, num_experts):
        """Raises Mistake unless there are so many MoE layers."""
        if not 1 <= self.layers <= layers:
            raise Mistake(f"{path}.layers={self.layers}: must be in [1, {layers} MoE layers]")
        self.router_there.check(f"{path}.router_there", num_experts)


@dataclasses.dataclass(frozen=True)
class Last(First):
    """The last MoE layers have a router of their own."""

    def router(self, n, layers, default):
        """Theirs in the last `layers` MoE layers."""
        return self.router_there if n >= layers - self.layers else default
