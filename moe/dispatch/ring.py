"""Expert parallelism by gathering tokens: every device reads all tokens and serves its experts.

Tokens travel once, before they are copied to their k experts, and partial sums are scattered back:
2 (P - 1) / P rows of D per token of the expert axis, whatever k is. Nothing is dropped. Cheaper
than `all_to_all` for large k, dearer for many devices.
"""

import dataclasses
from typing import ClassVar

from moe.dispatch.contract import Dispatch
from moe.dispatch.parallel import Parallel, gather_tokens
from moe.dispatch.ragged import Ragged


@dataclasses.dataclass(frozen=True)
class Ring(Parallel):
    """All-gather tokens and plan over the expert axis, compute local experts, reduce-scatter."""

    local: ClassVar[Dispatch] = Ragged()

    def exchange(self, plan, x_TD, experts, params, E, size):
        """Computes y_TD of this device's tokens."""
        return gather_tokens(self.local, plan, x_TD, experts, params, E, size)
