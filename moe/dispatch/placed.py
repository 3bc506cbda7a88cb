"""Serves experts of which some are held several times (`moe/dispatch/placement.py`)."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.contract import Dispatch, Stats
from moe.dispatch.parallel import load
from moe.experts.contract import Pool
from moe.params import Params, split_state, state, with_state
from moe.plan import Choices, Plan
from moe.registry import Mistake


@dataclasses.dataclass(frozen=True)
class Placed(Dispatch):
    """Sends the tokens of an expert to its copies in turn; `params` say whose copy is where.

    Attributes:
      dispatch: carries tokens to the copies, which it takes for so many experts.
      replicas: copies in all.
    """

    dispatch: Dispatch = AllToAll()
    replicas: int = 8

    def groups(self, T):
        """Splits T tokens as the dispatcher within does."""
        return self.dispatch.groups(T)

    def hold(self, params, E):
        """Copies experts in turn; its state expert_P says so."""
        return hold(self.dispatch.hold(params, E), jnp.arange(self.replicas) % E)

    def causal(self, K, T, E, devices):
        """As the dispatcher within, whose experts are the copies."""
        return self.dispatch.causal(K, T, self.replicas, devices)

    def with_capacity(self, factor):
        """With that factor for the dispatcher within."""
        return dataclasses.replace(self, dispatch=self.dispatch.with_capacity(factor))

    def copies(self, E):
        """The places, which devices share."""
        del E
        return self.replicas

    def __call__(self, plan, x_TD, pool):
        """Computes y_TD; state expert_P of the parameters is the expert of each copy."""
        y_TD, stats = self.dispatch(self._placed(plan, pool), x_TD, self._copies(pool))
        return y_TD, self._of_experts(stats, plan, pool)

    def exchange(self, plan, x_TD, pool, size):
        """Computes y_TD of this device's tokens."""
        placed, copies = self._placed(plan, pool), self._copies(pool)
        y_TD, stats = self.dispatch.exchange(placed, x_TD, copies, size)
        return y_TD, self._of_experts(stats, plan, pool)

    def _of_experts(self, stats: Stats, plan: Plan, pool: Pool) -> Stats:
        """With the load of the experts, in the place of that of their copies."""
        return dataclasses.replace(stats, load_E=load(cast(Choices, plan), pool.E))

    def _copies(self, pool: Pool) -> Pool:
        return dataclasses.replace(pool, params=split_state(pool.params)[0], E=self.replicas)

    def _placed(self, plan: Plan, pool: Pool) -> Choices:
        """The plan over copies."""
        if not isinstance(plan, Choices):
            raise Mistake(
                f"model.moe.dispatch=Placed: serves token choice only, and this router returns "
                f"{type(plan).__name__}"
            )
        expert_P, E, T = state(pool.params)["expert_P"], pool.E, plan.expert_TK.shape[0]
        copy_P = jnp.argsort(expert_P)  # stable: the copies of an expert are neighbours
        count_E = jnp.bincount(expert_P, length=E)
        first_E = jnp.cumsum(count_E) - count_E
        made = plan.expert_TK < E
        expert_TK = jnp.where(made, plan.expert_TK, 0)
        copy_TK = copy_P[first_E[expert_TK] + jnp.arange(T)[:, None] % count_E[expert_TK]]
        placed = jnp.where(made, copy_TK, expert_P.shape[0]).astype(jnp.int32)
        return Choices(placed, plan.gate_TK)

    def rows(self, T, K, size):
        """Those of the dispatcher within."""
        return self.dispatch.rows(T, K, size)

    def overhead(self, T, K, E, D):
        """Moves tokens as the dispatcher within does."""
        return self.dispatch.overhead(T, K, E, D)

    def check(self, path, tokens):
        """Raises Mistake where the dispatcher within does."""
        self.dispatch.check(f"{path}.dispatch", tokens)


def hold(params: Params, expert_P: jax.Array | np.ndarray) -> Params:
    """The parameters of E experts as those of their P copies."""
    held = jax.tree.map(lambda a: jnp.take(a, expert_P, axis=0), params)
    return with_state(held, expert_P=jnp.asarray(expert_P, jnp.int32))
