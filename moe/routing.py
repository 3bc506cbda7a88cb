"""Who reads which token: the router's contract and the plans that it returns.

Token choice follows GShard (arXiv 2006.16668), expert choice arXiv 2202.09368, soft mixing
arXiv 2308.00951. A plan says nothing of how tokens travel: that is a dispatcher's work.
"""

import dataclasses
import math
from typing import Any, ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from moe.losses import NoLosses, Terms
from moe.params import Params
from moe.registry import Mistake


@flax.struct.dataclass
class Choices:
    """Token choice: token t goes to expert_TK[t], its outputs weighted by gate_TK[t].

    E, one more than the last expert, marks a choice that was not made; its gate is 0.
    """

    expert_TK: jax.Array
    gate_TK: jax.Array

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

    def assigned_TE(self, T: int, E: int) -> jax.Array:
        """The share of each expert's slots that is made of each token (float32)."""
        del T, E
        return self.dispatch_TEC.astype(jnp.float32).sum(axis=2)


Plan = Choices | Slots | Mix


@flax.struct.dataclass
class Routing:
    """What a router returns for one group of T tokens.

    Attributes:
      plan: Choices, Slots or Mix.
      terms: name -> array with a leading axis T, what `Router.losses` needs; the layer adds the
        terms up over the scope of the losses.
      metrics: name -> scalar to log, never differentiated.
      stats: name -> array that `Router.update` needs beyond the load, already summed over the
        group; sums over groups, microbatches and devices.
    """

    plan: Plan
    terms: Terms = flax.struct.field(default_factory=dict)
    metrics: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    stats: dict[str, jax.Array] = flax.struct.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """What a router may learn of the training text before step 0.

    Attributes:
      count_V: how often each token id stands in it.
      token_S: the ids in the order of the text.
    """

    count_V: np.ndarray
    token_S: np.ndarray


class Router(Protocol):
    """Decides who reads which token; a frozen dataclass of hyper-parameters.

    The declarations are measured by tests/test_routers.py, not believed.

    Attributes:
      losses: what becomes of `Routing.terms`: an object with a scope that takes the sums and the
        number of tokens, and returns weighted losses and metrics (`moe.losses.Losses`).
    """

    kind: ClassVar[str] = "router"
    causal: ClassVar[bool] = True  # at evaluation, a token's plan does not depend on later tokens
    causal_in_training: ClassVar[bool] = True  # nor in training
    batch_invariant: ClassVar[bool] = True  # at evaluation, nor on other sequences of the batch
    needs_ids: ClassVar[bool] = False  # reads id_T
    needs_labels: ClassVar[bool] = False  # reads labels, through `keys`
    learned: ClassVar[bool] = True  # has parameters that the loss moves
    fixed_choices: ClassVar[bool] = True  # `choices` holds at every step, not only on average

    losses: ClassVar[Any] = NoLosses()

    def init(self, key: jax.Array, D: int, E: int, V: int) -> Params:
        """Makes the parameters; V is the vocabulary size, for routers that read ids."""
        ...

    def __call__(
        self, params: Params, x_TD: jax.Array, id_T: jax.Array, E: int, rng: jax.Array | None
    ) -> Routing:
        """Routes one group; rng=None is evaluation: no noise, deterministic.

        id_T is what `keys` made of the batch: the tokens' ids, unless the router says otherwise.
        """
        ...

    def keys(self, id_BL: jax.Array, label_BL: jax.Array | None) -> jax.Array:
        """The integer that a token is routed by, seen with its whole sequence; its id by default.

        label_BL: a human label of every token (`data.label`), or None where there is none.
        """
        del label_BL
        return id_BL

    def fit(self, params: Params, E: int, corpus: Corpus, seed: int) -> Params:
        """Adapts to the training corpus, once before step 0, outside jit."""
        del E, corpus, seed
        return params

    def update(self, params: Params, load_E: jax.Array, stats: dict[str, jax.Array]) -> Params:
        """Applies a rule that is no gradient, once per optimizer step.

        load_E and stats are sums over all groups, microbatches and devices of the step.
        """
        del load_E, stats
        return params

    def choices(self, E: int, T: int) -> float:
        """Experts that serve one of T tokens, on average: costs count it, tests measure it."""
        del E, T
        return 1

    def check(self, path: str, num_experts: int) -> None:
        """Raises Mistake, one line that starts with `path`, for impossible fields."""
        del path, num_experts


def capacity(capacity_factor: float, T: int, K: float, E: int) -> int:
    """Slots per expert: ceil(capacity_factor * T * K / E), at most T (assignments counted)."""
    return min(T, math.ceil(capacity_factor * T * K / E - 1e-9))


def slot_rows(plan: Choices, E: int, C: int) -> jax.Array:
    """row_TK = expert * C + slot of every assignment, E * C for those that have none.

    Slots go to first choices before second ones, and to tokens in order: a rank within the
    expert, found by sorting one packed integer key (expert, choice, token).
    """
    T, K = plan.expert_TK.shape
    R = T * K
    if (E + 1) * R >= 2**31:
        raise Mistake(f"(E + 1) * T * K = {E + 1} * {T} * {K}: must be below 2^31 for the key")
    expert_R = plan.expert_TK.T.reshape(R)  # choice-major
    index_R = jnp.arange(R, dtype=jnp.int32)
    key_R = jnp.sort(expert_R * R + index_R)
    first_E = first_rows(key_R, E)
    slot_R = index_R - first_E[key_R // R]
    slot_R = jnp.zeros(R, jnp.int32).at[key_R % R].set(slot_R, unique_indices=True)
    served_R = (slot_R < C) & (expert_R < E)
    row_R = jnp.where(served_R, expert_R * C + slot_R, E * C)
    return row_R.reshape(K, T).T


def first_rows(key_R: jax.Array, E: int) -> jax.Array:
    """Where the rows of each expert begin among sorted keys expert * R + index; E + 1 numbers.

    The last is where unmade choices begin.
    """
    R = key_R.shape[0]
    return jnp.searchsorted(key_R, jnp.arange(E + 1, dtype=jnp.int32) * R).astype(jnp.int32)


def owners(row_TK: jax.Array, R: int) -> tuple[jax.Array, jax.Array]:
    """token_R and rank_R of each row: its inverse, token T for rows of nobody."""
    T, K = row_TK.shape
    token_TK = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[:, None], (T, K))
    rank_TK = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32)[None], (T, K))
    token_R = jnp.full(R, T, jnp.int32).at[row_TK].set(token_TK, mode="drop")
    return token_R, jnp.zeros(R, jnp.int32).at[row_TK].set(rank_TK, mode="drop")


def check_capacity(path: str, capacity_factor: float) -> None:
    """Raises Mistake unless the capacity factor is a number > 0."""
    if not 0 < capacity_factor < float("inf"):
        raise Mistake(f"{path}.capacity_factor={capacity_factor}: must be a number > 0")


def check_choices(path: str, k: int, num_experts: int) -> None:
    """Raises Mistake unless a token can have k different experts."""
    if not 1 <= k <= num_experts:
        raise Mistake(f"{path}.k={k}: must be in [1, num_experts={num_experts}]")
