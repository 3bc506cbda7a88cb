"""Balanced assignment in training, greedy choice at evaluation: Sinkhorn (arXiv 2202.01169).

Rows and columns of exp(logits) are normalised in turn, so that choosing the largest entry is
nearly balanced (S-BASE in Clark et al. 2022). In training the choice for a token depends on all
others; at evaluation it does not.
"""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from moe.fields import AtLeast
from moe.routers.parts.losses import UNWEIGHTED, Losses
from moe.routers.parts.ranking import choose
from moe.routers.parts.scores import Score, Sigmoid
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class Sinkhorn(TopK):
    """Chooses from the Sinkhorn plan in training, from the logits at evaluation.

    Attributes:
      k, score: sigmoid gates at k = 1, as Megatron has them; take softmax for k > 1.
      losses: no balance loss: the plan balances.
      tolerance: iterations end when the logarithms of the columns' factors move by less, on
        average over experts.
      iterations: and after so many.
    """

    k: int = 1
    score: Score = Sigmoid()
    losses: Losses = UNWEIGHTED
    tolerance: Annotated[float, AtLeast(0)] = 1e-4
    iterations: Annotated[int, AtLeast(1)] = 100

    causal_in_training: ClassVar[bool] = False

    def assign(self, params, logits, id_T, rng):
        """The k largest entries of each row of the plan; plain top-k when rng is None."""
        if rng is None:
            return super().assign(params, logits, id_T, rng)
        return choose(log_plan(logits.noisy_TE, self.tolerance, self.iterations), self.k)

    def check(self, path, num_experts):
        """Raises Mistake for groups of experts, beside what top_k checks."""
        super().check(path, num_experts)
        self._refuse_groups(path, "sinkhorn balances all experts in training")


def log_plan(logits_TE: jax.Array, tolerance: float, iterations: int) -> jax.Array:
    """The logarithm of the plan whose rows sum to 1/T and columns to 1/E, nearest to exp(logits).

    Computed in logarithms, so that a term which a row or a column shares changes nothing, whatever
    its size. Carries no gradient.
    """
    T, E = logits_TE.shape
    logits_TE = jax.lax.stop_gradient(logits_TE)

    def body(state):
        i, _, column_E, _ = state
        row_T = -jnp.log(T) - jax.nn.logsumexp(logits_TE + column_E[None], axis=1)
        new_E = -jnp.log(E) - jax.nn.logsumexp(logits_TE + row_T[:, None], axis=0)
        return i + 1, row_T, new_E, jnp.abs(new_E - column_E).mean()

    def going(state):
        return (state[0] < iterations) & (state[3] > tolerance)

    start = (0, jnp.zeros(T), jnp.zeros(E), jnp.float32(jnp.inf))
    _, row_T, column_E, _ = jax.lax.while_loop(going, body, start)
    return logits_TE + row_T[:, None] + column_E[None]
