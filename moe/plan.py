"""What a token comes with, and the plans: who reads which token.

Token choice follows GShard (arXiv 2006.16668), expert choice arXiv 2202.09368, soft mixing
arXiv 2308.00951. A plan says nothing of how tokens travel: that is a dispatcher's work.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Tokens:
    """What a batch says of its tokens beside their hidden states.

    Attributes:
      id_BL: their ids.
      label_BL: a human label of each (`data.label`), or None where there is none.
    """

    id_BL: jax.Array
    label_BL: jax.Array | None = None


@flax.struct.dataclass
class Choices:
    """Token choice: token t goes to expert_TK[t], its outputs weighted by gate_TK[t].

    E, one more than the last expert, marks a choice that was not made; its gate is 0.
    """

    expert_TK: jax.Array
    gate_TK: jax.Array

    def only(self, kept_TK: jax.Array, E: int) -> "Choices":
        """The same plan with those choices alone; the others are not made."""
        expert_TK = jnp.where(kept_TK, self.expert_TK, E)
        return Choices(expert_TK, jnp.where(kept_TK, self.gate_TK, 0))

    def first(self, E: int) -> "Choices":
        """The plan of the first E experts; choices of others are not made."""
        return self.only(self.expert_TK < E, E)

    def assigned_TE(self, T: int, E: int) -> jax.Array:
        """How many of its K choices each token gives each expert (float32)."""
        del T
        return jax.nn.one_hot(self.expert_TK, E).sum(axis=1)

    def weight_TE(self, T: int, E: int) -> jax.Array:
        """The weight of each expert's output in each token's output (float32)."""
        del T
        hot_TKE = jax.nn.one_hot(self.expert_TK, E)
        return jnp.einsum("TKE,TK->TE", hot_TKE, self.gate_TK.astype(jnp.float32))


@flax.struct.dataclass
class Slots:
    """Expert choice: slot c of expert e reads token_EC[e, c]; T marks an empty slot, gate 0."""

    token_EC: jax.Array
    gate_EC: jax.Array

    def first(self, E: int) -> "Slots":
        """The plan of the first E experts."""
        return Slots(self.token_EC[..., :E, :], self.gate_EC[..., :E, :])

    def assigned_TE(self, T: int, E: int) -> jax.Array:
        """How many of its slots each expert gives each token (float32)."""
        return self._scatter(jnp.ones(self.token_EC.shape), T, E)

    def weight_TE(self, T: int, E: int) -> jax.Array:
        """The weight of each expert's output in each token's output (float32)."""
        return self._scatter(self.gate_EC.astype(jnp.float32), T, E)

    def _scatter(self, value_EC: jax.Array, T: int, E: int) -> jax.Array:
        expert_E1 = jnp.arange(E, dtype=jnp.int32)[:, None]
        return jnp.zeros((T, E)).at[self.token_EC, expert_E1].add(value_EC, mode="drop")


@flax.struct.dataclass
class Mix:
    """Soft plan: slot c of expert e reads sum_t dispatch_TEC x_TD; combine_TEC weighs it back."""

    dispatch_TEC: jax.Array
    combine_TEC: jax.Array

    def first(self, E: int) -> "Mix":
        """The plan of the first E experts."""
        return Mix(self.dispatch_TEC[..., :E, :], self.combine_TEC[..., :E, :])

    def assigned_TE(self, T: int, E: int) -> jax.Array:
        """The share of each expert's slots that is made of each token (float32)."""
        del T, E
        return self.dispatch_TEC.astype(jnp.float32).sum(axis=2)


Plan = Choices | Slots | Mix


def capacity(capacity_factor: float, T: int, K: float, E: int) -> int:
    """Slots per expert: ceil(capacity_factor * T * K / E), at most T (assignments counted)."""
    return min(T, max(1, math.ceil(capacity_factor * T * K / E - 1e-9)))
