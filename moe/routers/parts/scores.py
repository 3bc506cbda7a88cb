"""How router logits become scores that are compared and used as gates.

Whatever divides scores by their sum does so from their logarithms, so that logits at any height,
where the scores themselves are 0 or infinite in float32, have the same ratios and gradients.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp


class Score(Protocol):
    """Maps logits to scores >= 0 that rise with them."""

    kind: ClassVar[str] = "score"

    def __call__(self, logits_TE: jax.Array) -> jax.Array:
        """Returns score_TE in float32."""
        return jnp.exp(self.log(logits_TE))

    def log(self, logits_TE: jax.Array) -> jax.Array:
        """log score, up to a term that the experts of a token share; finite for finite logits."""
        ...

    def shares(self, logits_TE: jax.Array) -> jax.Array:
        """The scores of these experts over their sum, one for one.

        Of all experts they are the probabilities of the load-balance loss (DeepSeek-V3,
        2412.19437 eq. 18), of the chosen ones renormalised gates.
        """
        return jax.nn.softmax(self.log(logits_TE), axis=-1)


@dataclass(frozen=True)
class Softmax(Score):
    """exp(z_e) / sum exp(z): experts compete."""

    def __call__(self, logits_TE):
        """Returns probabilities."""
        return jax.nn.softmax(logits_TE)

    def log(self, logits_TE):
        """The logits: log sum exp(z) is the same for all experts."""
        return logits_TE


@dataclass(frozen=True)
class Sigmoid(Score):
    """1 / (1 + exp(-z_e)): every expert for itself (DeepSeek-V3, arXiv 2412.19437)."""

    def __call__(self, logits_TE):
        """Returns scores in (0, 1)."""
        return jax.nn.sigmoid(logits_TE)

    def log(self, logits_TE):
        """-log(1 + exp(-z))."""
        return jax.nn.log_sigmoid(logits_TE)


@dataclass(frozen=True)
class SqrtSoftplus(Score):
    """sqrt(log(1 + exp(z_e))): unbounded, slow above 1 (DeepSeek-V4)."""

    def log(self, logits_TE):
        """Half of log log(1 + exp(z)); below -15 half of z - exp(z) / 2, its series, to 1e-13."""
        low_TE = logits_TE < -15
        usual_TE = jnp.log(jax.nn.softplus(jnp.where(low_TE, 0, logits_TE)))
        below_TE = jnp.minimum(logits_TE, -15)
        return jnp.where(low_TE, below_TE - jnp.exp(below_TE) / 2, usual_TE) / 2
