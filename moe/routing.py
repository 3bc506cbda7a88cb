"""Who reads which token: the router's contract and the plans that it returns.

Token choice follows GShard (arXiv 2006.16668), expert choice arXiv 2202.09368, soft mixing
arXiv 2308.00951. A plan says nothing of how tokens travel: that is a dispatcher's work.
"""

import math
from typing import Any, ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Params = Any  # a nested dict of arrays; the subtree under a key "state" is never differentiated


@flax.struct.dataclass
class Choices:
    """Token choice: token t goes to expert_TK[t], its outputs weighted by gate_TK[t]."""

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
        del E
        return jax.nn.one_hot(self.token_EC, T).sum(axis=1).T

    def weight_TE(self, T: int, E: int) -> jax.Array:
        """The weight of each expert's output in each token's output (float32)."""
        del E
        hot_ECT = jax.nn.one_hot(self.token_EC, T)
        return jnp.einsum("ECT,EC->TE", hot_ECT, self.gate_EC.astype(jnp.float32))


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
      losses: name -> scalar, already weighted by the router; the trainer adds them up.
      metrics: name -> scalar to log, never differentiated.
      stats: name -> array that `Router.update` needs beyond the load.
    """

    plan: Plan
    losses: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    metrics: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    stats: dict[str, jax.Array] = flax.struct.field(default_factory=dict)


class Router(Protocol):
    """Decides who reads which token; a frozen dataclass of hyper-parameters.

    The four declarations are measured by tests/test_routers.py, not believed.
    """

    kind: ClassVar[str] = "router"
    causal: ClassVar[bool] = True  # a token's plan does not depend on later tokens
    batch_invariant: ClassVar[bool] = True  # nor on any other token of the group
    needs_ids: ClassVar[bool] = False  # reads id_T
    learned: ClassVar[bool] = True  # has parameters that the loss moves

    def init(self, key: jax.Array, D: int, E: int, V: int) -> Params:
        """Makes the parameters; V is the vocabulary size, for routers that read ids."""
        ...

    def __call__(
        self, params: Params, x_TD: jax.Array, id_T: jax.Array, E: int, rng: jax.Array | None
    ) -> Routing:
        """Routes one group; rng=None is evaluation: no noise, deterministic."""
        ...

    def fit(self, params: Params, E: int, count_V: np.ndarray, seed: int) -> Params:
        """Adapts to the training corpus' token counts, once before step 0, outside jit."""
        del E, count_V, seed
        return params

    def update(self, params: Params, load_E: jax.Array) -> Params:
        """Applies a rule that is no gradient, once per optimizer step, on the summed load."""
        del load_E
        return params

    def choices(self, E: int) -> float:
        """Experts that serve one token, on average; costs are counted with it, tests measure it."""
        del E
        return 1

    def check(self, path: str, num_experts: int) -> None:
        """Raises ValueError, one line that starts with `path`, for impossible fields."""
        del path, num_experts


def capacity(capacity_factor: float, T: int, K: int, E: int) -> int:
    """Slots per expert: ceil(capacity_factor * T * K / E), at most T (assignments counted)."""
    return min(T, math.ceil(capacity_factor * T * K / E - 1e-9))


def check_choices(path: str, k: int, num_experts: int) -> None:
    """Raises ValueError unless a token can have k different experts."""
    if not 1 <= k <= num_experts:
        raise ValueError(f"{path}.k={k}: must be in [1, num_experts={num_experts}]")
