"""BASE layers (arXiv 2103.16716): a balanced assignment by auction (Bertsekas 1992)."""

import dataclasses
import math
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from moe.fields import AtLeast, Within
from moe.registry import Mistake
from moe.routers.parts.losses import UNWEIGHTED, Losses
from moe.routers.parts.scores import Score, Sigmoid
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class Base(TopK):
    """Exactly T / E tokens for each expert in training (rounded up and down); greedy afterwards.

    The paper mixes sigmoid(gate) * f(x) + (1 - sigmoid(gate)) * x; here the residual path around
    the layer carries x, and the gate weighs f(x) alone.

    Attributes:
      tolerance: the assignment is within T * tolerance * (largest - smallest logit) of the best.
      iterations: rounds of the auction after which what is left fills the free places in order.
    """

    k: int = 1
    score: Score = Sigmoid()
    losses: Losses = UNWEIGHTED
    tolerance: Annotated[float, Within(0, 1, "()")] = 0.01
    iterations: Annotated[int, AtLeast(1)] = 2000

    causal_in_training: ClassVar[bool] = False

    def assign(self, params, logits, id_T, rng):
        """The balanced assignment of most summed logits; the largest logit when rng is None."""
        if rng is None:
            return super().assign(params, logits, id_T, rng)
        return balanced_assignment(logits.noisy_TE, self.tolerance, self.iterations)[:, None]

    def check(self, path, num_experts):
        """Raises Mistake for k > 1 and groups of experts, beside what top_k checks."""
        super().check(path, num_experts)
        self._refuse_groups(path, "base balances all experts in training")
        if self.k != 1:
            raise Mistake(f"{path}.k={self.k}: must be 1 for base")


def balanced_assignment(score_TE: jax.Array, tolerance: float, iterations: int) -> jax.Array:
    """expert_T (int32): every expert gets ceil(T/E) or fewer tokens, exactly T/E if E divides T.

    Free tokens bid for their best expert what it is worth to them above their second best, plus
    epsilon; an expert keeps the highest bids, and its price is the lowest one it keeps. Epsilon
    falls in phases to its last value, and each phase starts from the prices of the one before.
    """
    T, E = score_TE.shape
    if E == 1:
        return jnp.zeros(T, jnp.int32)
    score_TE = jax.lax.stop_gradient(score_TE.astype(jnp.float32))
    C, spread = -(-T // E), score_TE.max() - score_TE.min()
    spread = jnp.where(spread > 0, spread, 1)
    # Tokens that fill the last places do not care where they go.
    score_TE = jnp.pad(score_TE, ((0, E * C - T), (0, 0)))
    phases = max(1, math.ceil(math.log(1 / tolerance, 8)))
    price_E, expert_T = jnp.zeros(E), jnp.full(E * C, E, jnp.int32)
    for phase in reversed(range(phases)):
        epsilon = spread * tolerance * 8**phase
        expert_T, price_E = _auction(score_TE, price_E, epsilon, C, iterations)
    return _fill_free(expert_T, E, C)[:T]


def _auction(score_TE, start_E, epsilon, C, iterations):
    """One phase: expert_T (E where still free) and price_E, from the prices start_E."""
    T, E = score_TE.shape

    def body(state):
        i, expert_T, bid_T, price_E = state
        worth_TE = score_TE - price_E[None]
        place_T = jnp.argmax(worth_TE, axis=1).astype(jnp.int32)
        own = jax.nn.one_hot(place_T, E, dtype=bool)
        ahead_T = worth_TE.max(axis=1) - jnp.where(own, -jnp.inf, worth_TE).max(axis=1)
        is_free = expert_T == E
        expert_T = jnp.where(is_free, place_T, expert_T)
        bid_T = jnp.where(is_free, price_E[place_T] + ahead_T + epsilon, bid_T)
        return i + 1, *_keep_highest(expert_T, bid_T, start_E, C)

    def going(state):
        return (state[0] < iterations) & jnp.any(state[1] == E)

    start = (0, jnp.full(T, E, jnp.int32), jnp.zeros(T), start_E)
    _, expert_T, _, price_E = jax.lax.while_loop(going, body, start)
    return expert_T, price_E


def _keep_highest(expert_T, bid_T, start_E, C):
    """Each expert keeps its C highest bids; the others are free (expert E) again."""
    E = start_E.shape[0]
    T = expert_T.shape[0]
    token_T = jnp.arange(T, dtype=jnp.int32)
    sorted_expert_T, minus_bid_T, token_T = jax.lax.sort((expert_T, -bid_T, token_T), num_keys=3)
    count_E = jnp.sum(jax.nn.one_hot(expert_T, E, dtype=jnp.int32), axis=0)
    first_E = jnp.cumsum(count_E) - count_E
    rank_T = jnp.arange(T, dtype=jnp.int32) - first_E[sorted_expert_T]
    kept_T = jnp.where(rank_T < C, sorted_expert_T, E)
    last_E = jnp.minimum(first_E + C - 1, T - 1)
    price_E = jnp.where(count_E >= C, -minus_bid_T[last_E], start_E)
    return jnp.zeros_like(expert_T).at[token_T].set(kept_T), bid_T, price_E


def _fill_free(expert_T, E, C):
    """Gives free tokens the free places, both in order."""
    count_E = jnp.sum(jax.nn.one_hot(expert_T, E, dtype=jnp.int32), axis=0)
    end_E = jnp.cumsum(C - count_E)
    is_free = expert_T == E
    rank_T = jnp.cumsum(is_free) - 1
    filled_T = jnp.searchsorted(end_E, rank_T, side="right").astype(jnp.int32)
    return jnp.where(is_free, filled_T, expert_T)
