"""How a hashed expert's output is weighed."""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from moe.params import Params
from moe.routers.parts.ranking import product, take
from moe.routers.parts.scores import Score, Softmax


class Gate(Protocol):
    """How a hashed expert's output is weighed."""

    kind: ClassVar[str] = "gate"
    learned: ClassVar[bool] = True

    def init(self, key: jax.Array, D: int, E: int) -> Params:
        """Makes w_DE, or nothing."""
        return {"w_DE": jax.random.normal(key, (D, E)) / D**0.5}

    def products(self, D: int, E: int) -> int:
        """Multiply-adds per token of its own matrix products: x w, or none."""
        return D * E

    def __call__(self, params: Params, x_TD: jax.Array, expert_TK: jax.Array) -> jax.Array:
        """Returns gate_TK in float32."""
        ...


@dataclasses.dataclass(frozen=True)
class ConstantGate(Gate):
    """1/k for every expert, the paper's choice at k = 1."""

    learned: ClassVar[bool] = False

    def init(self, key, D, E):
        """Has no parameters."""
        del key, D, E
        return {}

    def products(self, D, E):
        """None."""
        del D, E
        return 0

    def __call__(self, params, x_TD, expert_TK):
        """The constant."""
        del params, x_TD
        return jnp.full(expert_TK.shape, 1 / expert_TK.shape[1], jnp.float32)


@dataclasses.dataclass(frozen=True)
class ScalarGate(Gate):
    """2 sigmoid(x w_e) / k, about 1/k at step 0: each expert learns how loud to be."""

    def __call__(self, params, x_TD, expert_TK):
        """One product with every expert's column, of which the hashed ones count."""
        logits_TE = product(x_TD, params["w_DE"])
        return jax.nn.sigmoid(take(logits_TE, expert_TK)) * (2 / expert_TK.shape[1])


@dataclasses.dataclass(frozen=True)
class ScoreGate(Gate):
    """The score that a learned router would give the hashed experts (DeepSeek-V4's form).

    Renormalised over the k experts when k > 1.

    Attributes:
      score: over all experts; DeepSeek-V4 has sqrt_softplus.
      scale: factor of the gates.
    """

    score: Score = Softmax()
    scale: float = 1.0

    def __call__(self, params, x_TD, expert_TK):
        """Scores all experts and takes the hashed ones."""
        logits_TE = product(x_TD, params["w_DE"])
        if expert_TK.shape[1] > 1:
            return self.score.shares(take(logits_TE, expert_TK)) * self.scale
        return take(self.score(logits_TE), expert_TK) * self.scale
