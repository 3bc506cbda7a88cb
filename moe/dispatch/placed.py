"""Serves experts of which some are held several times (`moe/dispatch/placement.py`)."""

import dataclasses

import jax
import jax.numpy as jnp

from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.contract import Dispatch
from moe.dispatch.parallel import load
from moe.params import Params
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
        """Copies experts in turn and says so in params["state"]["expert_P"]."""
        return hold(self.dispatch.hold(params, E), jnp.arange(self.replicas) % E)

    def copies(self, E):
        """The places, which devices share."""
        del E
        return self.replicas

    def __call__(self, plan, x_TD, experts, params, E):
        """Computes y_TD; params["state"]["expert_P"] is the expert of each copy."""
        placed, held = self._placed(plan, params, E)
        y_TD, stats = self.dispatch(placed, x_TD, experts, held, self.replicas)
        return y_TD, stats.replace(load_E=load(plan, E))

    def exchange(self, plan, x_TD, experts, params, E, size):
        """Computes y_TD of this device's tokens."""
        placed, held = self._placed(plan, params, E)
        y_TD, stats = self.dispatch.exchange(placed, x_TD, experts, held, self.replicas, size)
        return y_TD, stats.replace(load_E=load(plan, E))

    def _placed(self, plan: Plan, params: Params, E: int) -> tuple[Choices, Params]:
        """The plan over copies, and their parameters."""
        if not isinstance(plan, Choices):
            raise Mistake(
                f"model.moe.dispatch=Placed: serves token choice only, and this router returns "
                f"{type(plan).__name__}"
            )
        expert_P, T = params["state"]["expert_P"], plan.expert_TK.shape[0]
        copy_P = jnp.argsort(expert_P)  # stable: the copies of an expert are neighbours
        count_E = jnp.bincount(expert_P, length=E)
        first_E = jnp.cumsum(count_E) - count_E
        made = plan.expert_TK < E
        expert_TK = jnp.where(made, plan.expert_TK, 0)
        copy_TK = copy_P[first_E[expert_TK] + jnp.arange(T)[:, None] % count_E[expert_TK]]
        placed = jnp.where(made, copy_TK, expert_P.shape[0]).astype(jnp.int32)
        held = {name: leaf for name, leaf in params.items() if name != "state"}
        return Choices(placed, plan.gate_TK), held

    def overhead(self, T, K, E, D):
        """Moves tokens as the dispatcher within does."""
        return self.dispatch.overhead(T, K, E, D)

    def check(self, path, tokens):
        """Raises Mistake where the dispatcher within does."""
        self.dispatch.check(f"{path}.dispatch", tokens)


def hold(params: Params, expert_P: jax.Array) -> Params:
    """The parameters of E experts as those of their P copies."""
    held = jax.tree.map(lambda a: jnp.take(a, expert_P, axis=0), params)
    return {**held, "state": {"expert_P": jnp.asarray(expert_P, jnp.int32)}}
