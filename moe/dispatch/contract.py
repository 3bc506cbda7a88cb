"""What every dispatcher takes and returns, and the sums that all of them share."""

import dataclasses
from typing import Any, ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from moe.devices.sharding import EXPERT
from moe.experts.contract import Experts, Pool, batched_product
from moe.order import Priority
from moe.params import Params, Size
from moe.plan import Plan, Slots, capacity
from moe.registry import Mistake


@flax.struct.dataclass
class Stats:
    """What a dispatcher counted in one group.

    Attributes:
      load_E: assignments that the plan asked of each expert, before any drop.
      dropped_TK: 1 for every assignment of the plan that was not served, else 0 (float32; one
        column for plans without choice ranks).
      slots_used: share of the computed expert rows that carried a token.
    """

    load_E: jax.Array
    dropped_TK: jax.Array
    slots_used: jax.Array

    @property
    def dropped_K(self) -> jax.Array:
        """The drops by choice rank."""
        return self.dropped_TK.sum(axis=-2)


class Dispatch(Protocol):
    """Turns a plan into outputs; a frozen dataclass of hyper-parameters.

    On a mesh `moe/dispatch/parallel.py` calls it on every device with whole groups of tokens or,
    where no token's outputs depend on other tokens (`tokenwise`), with any part of them.
    """

    kind: ClassVar[str] = "dispatch"
    __dataclass_fields__: ClassVar[dict[str, Any]]  # so that `dataclasses.replace` takes it
    tokenwise: ClassVar[bool] = True  # for token choice

    def groups(self, T: int) -> int:
        """Into how many independently routed groups T tokens are split; one, if not said."""
        del T
        return 1

    def causal(self, K: int, T: int, E: int, devices: int) -> bool:
        """Whether a token's output never depends on later tokens of its own sequence.

        Tokens of a group lie sequence by sequence; where they compete for room, those of the
        sequences before may take it from any position, and the promise says nothing of that. It
        presumes a plan that is causal itself. Always, unless said otherwise: nothing is dropped.

        Args:
          K: choice ranks in which one and the same expert may stand (`Router.ranks`).
          T: tokens of a group.
          devices: that share the experts.
        """
        del K, T, E, devices
        return True

    def with_capacity(self, factor: float) -> "Dispatch":
        """The same with another capacity factor; itself where it has none."""
        del factor
        return self

    def copies(self, E: int) -> int:
        """How many networks hold the parameters of E experts; E, unless some are held twice."""
        return E

    def hold(self, params: Params, E: int) -> Params:
        """Arranges the E experts that were just made as `__call__` takes them."""
        del E
        return params

    def __call__(self, plan: Plan, x_TD: jax.Array, pool: Pool) -> tuple[jax.Array, Stats]:
        """Returns y_TD in the dtype of x_TD; tokens that no expert serves get 0."""
        ...

    def exchange(
        self, plan: Plan, x_TD: jax.Array, pool: Pool, size: int
    ) -> tuple[jax.Array, Stats]:
        """The same on one of `size` devices that share the experts and hold the params of theirs.

        Unless said otherwise, the rows of each expert travel to its device and back.
        """
        del size
        return self(plan, x_TD, elsewhere(pool))

    def rows(self, T: int, K: float, size: int) -> float:
        """Rows of experts that one of `size` devices which share them has room for.

        As many as its own T tokens have choices, unless said otherwise.
        """
        del size
        return T * K

    def overhead(self, T: int, K: float, E: int, D: int) -> float:
        """Matrix-product FLOPs per token that move tokens, forward, T tokens in all.

        None, unless said otherwise: rows move by gathers and collectives.
        """
        del T, K, E, D
        return 0.0

    def sizes(self, path: str, tokens: int) -> tuple[Size, ...]:
        """What a mesh splits, of the dispatch of that many tokens; nothing, unless said."""
        del path, tokens
        return ()

    def check(self, path: str, tokens: int) -> None:
        """Raises Mistake, one line that starts with `path`, for impossible fields."""
        del path, tokens


class Grouped(Dispatch):
    """A dispatcher with a capacity: tokens of a group compete for the slots of each expert."""

    tokenwise: ClassVar[bool] = False
    capacity_factor: float
    group_size: int
    priority: Priority

    def causal(self, K, T, E, devices):
        """If slots go to tokens in order, or each expert has one for every token."""
        return self.priority.causal(K) or capacity(self.capacity_factor, T, K, E) >= T

    def with_capacity(self, factor):
        """With that factor."""
        return dataclasses.replace(self, capacity_factor=factor)

    def groups(self, T):
        """Splits T tokens into groups of group_size, or of all T where T is smaller."""
        return max(1, T // self.group_size) if self.group_size else 1

    def rows(self, T, K, size):
        """The slots of all experts; those of its own experts are as many."""
        del size
        return self.capacity_factor * T * K

    def sizes(self, path, tokens):
        """The groups, which stay whole."""
        groups = self.groups(tokens)
        what = f"{path}.group_size={self.group_size}: {groups} groups of a batch"
        return (Size(what, "G", groups),)

    def check(self, path, tokens):
        """Raises Mistake for a group size that does not divide."""
        size = self.group_size
        if size < 0 or (0 < size < tokens and tokens % size):
            raise Mistake(
                f"{path}.group_size={size}: must divide the {tokens} tokens of a batch, or be 0"
            )


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """Experts that are spread over the devices of the expert axis; under `jax.shard_map`.

    Attributes:
      experts: what each device applies to the rows of its own.
    """

    experts: Experts

    def __call__(self, params: Params, x_ECD: jax.Array, product=batched_product) -> jax.Array:
        """Sends rows to the devices of their experts and back: two all-to-alls."""
        x_ESD = jax.lax.all_to_all(x_ECD, EXPERT, 0, 1, tiled=True)  # own experts, all devices
        y_ESD = self.experts(params, x_ESD, product)
        return jax.lax.all_to_all(y_ESD, EXPERT, 1, 0, tiled=True)


def elsewhere(pool: Pool) -> Pool:
    """The pool as one device sees it that holds a part: rows travel to the device of an expert."""
    return dataclasses.replace(pool, experts=Elsewhere(pool.experts))


def no_drops(plan: Plan, T: int, E: int, slots_used: jax.Array | float = 1.0) -> Stats:
    """The statistics of a dispatcher that serves everything."""
    load_E = plan.assigned_TE(T, E).sum(axis=0)
    return Stats(load_E, jnp.zeros((T, 1)), jnp.asarray(slots_used, jnp.float32))


def serve_slots(plan: Slots, x_TD: jax.Array, pool: Pool) -> tuple[jax.Array, Stats]:
    """Expert choice: gather each slot's token, apply, add back; empty slots read a zero row."""
    T, D = x_TD.shape
    source_TD = jnp.concatenate([x_TD, jnp.zeros((1, D), x_TD.dtype)])
    y_ECD = pool(jnp.take(source_TD, plan.token_EC, axis=0))
    weighted_ECD = y_ECD * plan.gate_EC[..., None].astype(y_ECD.dtype)
    y_TD = jnp.zeros_like(source_TD).at[plan.token_EC].add(weighted_ECD)[:T]
    return y_TD, no_drops(plan, T, pool.E, jnp.mean(plan.token_EC < T, dtype=jnp.float32))
