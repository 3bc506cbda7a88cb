"""ReLU routing: a gate is open or shut by itself, sparsity is a loss (ReMoE, arXiv 2412.14711)."""

import dataclasses
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp

from moe.fields import Above, AtLeast
from moe.params import state, with_state
from moe.plan import Choices
from moe.registry import Mistake
from moe.routers.contract import Router, Routing, check_choices
from moe.routers.parts.ranking import choose, init_matrix, product, take


@dataclasses.dataclass(frozen=True)
class SparsityLoss:
    """lambda * mean over tokens of sum_e f_e gate_e, the refined L1 loss of eq. 11-12.

    f_e is the share of tokens for which expert e is open, over the target k / E, so busy experts
    are pressed harder. lambda is state of the router, see `ReLURouter.update`.

    Attributes:
      scope: always the whole batch.
      k: the target, set by the router.
    """

    scope: Literal["batch"] = "batch"
    k: float = 1.0

    def __call__(self, sums, tokens):
        """The loss, and the mean number of open experts."""
        open_E = jax.lax.stop_gradient(sums["open_TE"])
        E = open_E.shape[-1]
        f_E = open_E * (E / (self.k * tokens))
        strength = jax.lax.stop_gradient(sums["strength_T"] / tokens)
        penalty = jnp.sum(f_E * sums["gate_TE"]) / tokens
        metrics = {"sparsity": penalty, "open_experts": open_E.sum() / tokens}
        return {"sparsity": strength * penalty}, metrics


@dataclasses.dataclass(frozen=True)
class ReLURouter(Router):
    """gate = relu(x w): a token has as many experts as gates are open, k on average.

    Attributes:
      k: experts per token that the adaptive loss aims at, in [1, num_experts].
      most: experts that one token can have at most, others are dropped; 0 is all.
      start: lambda at step 0.
      factor: by which lambda grows while more than k experts are open, and shrinks otherwise;
        the paper's alpha, > 1.
      init_scale: router weights start with standard deviation init_scale / sqrt(D).
    """

    k: int = 1
    most: int = 0
    start: Annotated[float, Above(0)] = 1e-8
    factor: Annotated[float, Above(1)] = 1.2
    init_scale: Annotated[float, AtLeast(0)] = 1.0

    fixed_choices: ClassVar[bool] = False

    @property
    def losses(self) -> SparsityLoss:
        """The sparsity loss for this k."""
        return SparsityLoss(k=float(self.k))

    def init(self, key, D, E, V):
        """Makes w_DE and state.log_lambda."""
        del V
        w_DE = init_matrix(key, D, E, self.init_scale)
        return with_state({"w_DE": w_DE}, log_lambda=jnp.log(jnp.float32(self.start)))

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD; shut gates are choices of expert E."""
        del id_T, rng
        T = x_TD.shape[0]
        gate_TE = jax.nn.relu(product(x_TD, params["w_DE"]))
        expert_TK = jnp.broadcast_to(jnp.arange(E, dtype=jnp.int32), gate_TE.shape)
        if self.most:
            expert_TK = choose(gate_TE, self.most)
        gate_TK = take(gate_TE, expert_TK) if self.most else gate_TE
        expert_TK = jnp.where(gate_TK > 0, expert_TK, E)
        terms = {
            "gate_TE": gate_TE,
            "open_TE": (gate_TE > 0).astype(jnp.float32),
            "strength_T": jnp.broadcast_to(jnp.exp(state(params)["log_lambda"]), (T,)),
        }
        stats = {"tokens": jnp.float32(T), "open": terms["open_TE"].sum()}
        asked_TE = terms["open_TE"] if self.most else None
        return Routing(Choices(expert_TK, gate_TK), terms, stats=stats, asked_TE=asked_TE)

    def preferences(self, params, x_TD, id_T, E):
        """x w."""
        del id_T, E
        return product(x_TD, params["w_DE"])

    def matrix(self, params):
        """w_DE."""
        return params["w_DE"]

    def update(self, params, load_E, stats):
        """lambda *= factor^sign(open experts per token - k), eq. 9; each layer has its own."""
        excess = stats["open"] / stats["tokens"] - self.k
        change = jnp.sign(excess) * jnp.log(jnp.float32(self.factor))
        return with_state(params, log_lambda=state(params)["log_lambda"] + change)

    def choices(self, E, T):
        """k, once the adaptive loss has settled."""
        del E, T
        return self.k

    def products(self, D, E):
        """x w."""
        return D * E

    def ranks(self, E):
        """One column for each expert, or the `most` largest gates of a token in their order."""
        del E
        return self.most or 1

    def check(self, path, num_experts):
        """Raises Mistake for impossible k and caps."""
        check_choices(path, self.k, num_experts)
        if self.most and not self.k <= self.most <= num_experts:
            raise Mistake(
                f"{path}.most={self.most}: must be 0 or in [k={self.k}, num_experts={num_experts}]"
            )
