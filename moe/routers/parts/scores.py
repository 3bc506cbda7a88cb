"""How router logits become scores that are compared and used as gates."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp


class Score(Protocol):
    """Maps logits to scores >= 0, and scores to rows that sum to 1."""

    kind: ClassVar[str] = "score"

    def __call__(self, logits_TE: jax.Array) -> jax.Array:
        """Returns score_TE in float32."""
        ...

    def probability(self, score_TE: jax.Array) -> jax.Array:
        """The scores over their sum, for the load-balance loss (DeepSeek-V3, 2412.19437 eq. 18)."""
        return score_TE / (score_TE.sum(axis=-1, keepdims=True) + 1e-20)


@dataclass(frozen=True)
class Softmax(Score):
    """exp(z_e) / sum exp(z): experts compete."""

    def __call__(self, logits_TE):
        """Returns probabilities."""
        return jax.nn.softmax(logits_TE)

    def probability(self, score_TE):
        """The scores themselves."""
        return score_TE


@dataclass(frozen=True)
class Sigmoid(Score):
    """1 / (1 + exp(-z_e)): every expert for itself (DeepSeek-V3, arXiv 2412.19437)."""

    def __call__(self, logits_TE):
        """Returns scores in (0, 1)."""
        return jax.nn.sigmoid(logits_TE)


@dataclass(frozen=True)
class SqrtSoftplus(Score):
    """sqrt(log(1 + exp(z_e))): unbounded, slow above 1 (DeepSeek-V4)."""

    def __call__(self, logits_TE):
        """Returns scores > 0."""
        return jnp.sqrt(jax.nn.softplus(logits_TE))
