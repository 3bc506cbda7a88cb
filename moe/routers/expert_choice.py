"""Expert choice: experts pick tokens (Zhou et al. 2022, arXiv 2202.09368).

Loads are equal by construction, and a token may get many experts or none. Whether a token is
picked depends on the other tokens of its group, later ones too: no causal language model.
"""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from moe.fields import Above, AtLeast
from moe.plan import Slots, capacity
from moe.routers.contract import Router, Routing
from moe.routers.parts.losses import Losses
from moe.routers.parts.ranking import init_matrix, product, take


@dataclasses.dataclass(frozen=True)
class ExpertChoice(Router):
    """Every expert takes its C best tokens by probability, C = ceil(capacity_factor * T / E).

    Attributes:
      capacity_factor: experts per token on average, the paper's c.
      losses: the z-loss; balance needs none.
      init_scale: router weights start with standard deviation init_scale / sqrt(D).
    """

    capacity_factor: Annotated[float, Above(0)] = 2.0
    losses: Losses = Losses(load_balance=0.0, z_loss=0.001)
    init_scale: Annotated[float, AtLeast(0)] = 1.0

    causal: ClassVar[bool] = False
    causal_in_training: ClassVar[bool] = False
    batch_invariant: ClassVar[bool] = False

    def init(self, key, D, E, V):
        """Makes w_DE in float32."""
        del V
        return {"w_DE": init_matrix(key, D, E, self.init_scale)}

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD: S = softmax over experts, then top-C over tokens (the paper's eq. 1-2)."""
        del id_T, rng
        T = x_TD.shape[0]
        logits_TE = product(x_TD, params["w_DE"])
        probability_TE = jax.nn.softmax(logits_TE)
        C = capacity(self.capacity_factor, T, 1, E)
        # By logarithms, which differ where probabilities are 0 in float32.
        log_TE = jax.lax.stop_gradient(jax.nn.log_softmax(logits_TE))
        token_EC = jax.lax.top_k(log_TE.T, C)[1].astype(jnp.int32)
        plan = Slots(token_EC, take(probability_TE.T, token_EC))
        assigned_TE = plan.assigned_TE(T, E)
        terms = self.losses.terms(logits_TE, probability_TE, assigned_TE, None, params["w_DE"])
        served_T = jax.lax.stop_gradient(assigned_TE).sum(axis=1) > 0
        return Routing(plan, terms, metrics={"tokens_served": served_T.mean(dtype=jnp.float32)})

    def matrix(self, params):
        """w_DE; a token's experts are not compared with each other."""
        return params["w_DE"]

    def with_capacity(self, factor):
        """With that factor."""
        return dataclasses.replace(self, capacity_factor=factor)

    def choices(self, E, T):
        """capacity_factor, at most all."""
        del T
        return min(self.capacity_factor, E)

    def products(self, D, E):
        """x w."""
        return D * E
