"""Picks a mechanism that drops nothing, so that the choice never moves a result.

One device: `ragged`, the fastest of all that were timed (docs/dispatch.md). An expert axis of P
devices: a token's row of D numbers crosses it 2 (P - 1) times by `ragged`, whatever k is, and
2 k c (P - 1) / P times by an exchange with room c; the smaller wins.
"""

import dataclasses
import functools
import sys
from typing import Annotated, NamedTuple

from moe.devices import sharding
from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.contract import Dispatch
from moe.dispatch.overflow import Exact
from moe.dispatch.ragged import Ragged
from moe.dispatch.ragged_all_to_all import RaggedAllToAll
from moe.fields import Above
from moe.plan import Choices


class Choice(NamedTuple):
    """A dispatcher, and why it was taken."""

    dispatch: Dispatch
    reason: str


@dataclasses.dataclass(frozen=True)
class Auto(Dispatch):
    """Chooses by plan, mesh and the platform compiled for; says once on stderr what it took.

    Attributes:
      room: the exchanges' capacity factor; what does not fit takes the slower exact path.
    """

    room: Annotated[float, Above(0)] = 1.5

    def choose(self, K: float, platform: str) -> Choice:
        """The choice for K choices of a token on the mesh in use; 0 for plans of other kinds."""
        P = sharding.sizes().get(sharding.EXPERT, 1)
        if P == 1:
            return Choice(Ragged(), "no expert axis: sorted rows, nothing dropped")
        if not K:
            return Choice(Ragged(), "slots or mixtures: rows of each expert travel to its device")
        gathered, exchange = 2 * (P - 1), 2 * K * self.room * (P - 1) / P
        cost = f"a token's row crosses {gathered:.3g} x gathered, {exchange:.3g} x by exchange"
        if gathered <= exchange:
            return Choice(Ragged(), cost)
        if platform == "cpu":
            return Choice(AllToAll(self.room, Exact()), cost)
        return Choice(RaggedAllToAll(self.room, Exact()), cost)

    def __call__(self, plan, x_TD, pool):
        """Computes y_TD with the chosen dispatcher."""
        return self._chosen(plan)(plan, x_TD, pool)

    def exchange(self, plan, x_TD, pool, size):
        """Computes y_TD of this device's tokens with the chosen dispatcher."""
        return self._chosen(plan).exchange(plan, x_TD, pool, size)

    def rows(self, T, K, size):
        """Those of the chosen dispatcher."""
        return self.choose(K, sharding.platform()).dispatch.rows(T, K, size)

    def _chosen(self, plan) -> Dispatch:
        K = plan.expert_TK.shape[1] if isinstance(plan, Choices) else 0
        choice = self.choose(K, sharding.platform())
        _say(f"dispatch auto: {explain(choice)}")
        return choice.dispatch


def explain(choice: Choice) -> str:
    """One line: the dispatcher as an expression, and why."""
    return f"{choice.dispatch} ({choice.reason})"


@functools.cache
def _say(line: str) -> None:
    print(line, file=sys.stderr)
