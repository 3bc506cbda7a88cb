"""What every dispatcher takes and returns, and the sums that all of them share."""

from typing import ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from moe.experts import Experts
from moe.routing import Mix, Params, Plan, Slots


@flax.struct.dataclass
class Stats:
    """What a dispatcher counted in one group.

    Attributes:
      load_E: assignments that the plan asked of each expert, before any drop.
      dropped_K: assignments that were not served, by choice rank (length 1 without ranks).
      slots_used: share of the computed expert rows that carried a token.
    """

    load_E: jax.Array
    dropped_K: jax.Array
    slots_used: jax.Array


class Dispatch(Protocol):
    """Turns a plan into outputs; a frozen dataclass of hyper-parameters."""

    kind: ClassVar[str] = "dispatch"

    def groups(self, T: int) -> int:
        """Into how many independently routed groups T tokens are split; one, if not said."""
        del T
        return 1

    def hold(self, params: Params, E: int) -> Params:
        """Arranges the E experts that were just made as `__call__` takes them."""
        del E
        return params

    def __call__(
        self, plan: Plan, x_TD: jax.Array, experts: Experts, params: Params, E: int
    ) -> tuple[jax.Array, Stats]:
        """Returns y_TD in the dtype of x_TD; tokens that no expert serves get 0."""
        ...

    def overhead(self, T: int, K: int, E: int, D: int) -> float:
        """Matrix-product FLOPs per token that move tokens, forward, T tokens in all."""
        ...

    def check(self, path: str, tokens: int) -> None:
        """Raises ValueError, one line that starts with `path`, for impossible fields."""
        del path, tokens


def no_drops(plan: Plan, T: int, E: int, slots_used: jax.Array | float = 1.0) -> Stats:
    """The statistics of a dispatcher that serves everything."""
    load_E = plan.assigned_TE(T, E).sum(axis=0)
    return Stats(load_E, jnp.zeros(1), jnp.asarray(slots_used, jnp.float32))


def mix(plan: Mix, x_TD: jax.Array, experts: Experts, params: Params) -> jax.Array:
    """y_t = sum_ec combine_tec expert_e(sum_t' dispatch_t'ec x_t'), the soft plan as written."""
    x_ECD = jnp.einsum("TEC,TD->ECD", plan.dispatch_TEC.astype(x_TD.dtype), x_TD)
    y_ECD = experts(params, x_ECD)
    return jnp.einsum("TEC,ECD->TD", plan.combine_TEC.astype(x_TD.dtype), y_ECD)


def serve_slots(
    plan: Slots, x_TD: jax.Array, experts: Experts, params: Params, E: int
) -> tuple[jax.Array, Stats]:
    """Expert choice: gather each slot's token, apply, add back; empty slots read a zero row."""
    T, D = x_TD.shape
    source_TD = jnp.concatenate([x_TD, jnp.zeros((1, D), x_TD.dtype)])
    y_ECD = experts(params, jnp.take(source_TD, plan.token_EC, axis=0))
    weighted_ECD = y_ECD * plan.gate_EC[..., None].astype(y_ECD.dtype)
    y_TD = jnp.zeros_like(source_TD).at[plan.token_EC].add(weighted_ECD)[:T]
    return y_TD, no_drops(plan, T, E, jnp.mean(plan.token_EC < T, dtype=jnp.float32))
