"""No choice: every token reads every expert, the k = E end of the scale."""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from moe.fields import AtLeast
from moe.plan import Choices
from moe.routers.contract import Router, Routing
from moe.routers.parts.losses import UNWEIGHTED, Losses
from moe.routers.parts.ranking import init_matrix, product


@dataclasses.dataclass(frozen=True)
class Dense(Router):
    """All E experts for every token, each output weighted 1/E; nothing is learned."""

    learned: ClassVar[bool] = False

    def init(self, key, D, E, V):
        """Has no parameters."""
        del key, D, E, V
        return {}

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD: expert_TK lists every expert, gate_TK is 1/E."""
        del params, id_T, rng
        T = x_TD.shape[0]
        return Routing(Choices(_everyone(T, E), jnp.full((T, E), 1 / E, jnp.float32)))

    def choices(self, E, T):
        """All of them."""
        del T
        return E


@dataclasses.dataclass(frozen=True)
class DenseSoftmax(Router):
    """All E experts for every token, weighed by softmax(x w): Jacobs et al. (1991), eq. 1.

    Attributes:
      losses: auxiliary losses; none by default, since no expert can be left out.
      init_scale: router weights start with standard deviation init_scale / sqrt(D).
    """

    losses: Losses = UNWEIGHTED
    init_scale: Annotated[float, AtLeast(0)] = 1.0

    def init(self, key, D, E, V):
        """Makes w_DE in float32."""
        del V
        return {"w_DE": init_matrix(key, D, E, self.init_scale)}

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD; choice k is expert k."""
        del id_T, rng
        logits_TE = product(x_TD, params["w_DE"])
        plan = Choices(_everyone(x_TD.shape[0], E), jax.nn.softmax(logits_TE))
        terms = self.losses.terms(
            logits_TE, plan.gate_TK, jnp.ones_like(logits_TE), None, params["w_DE"]
        )
        return Routing(plan, terms)

    def preferences(self, params, x_TD, id_T, E):
        """x w."""
        del id_T, E
        return product(x_TD, params["w_DE"])

    def matrix(self, params):
        """w_DE."""
        return params["w_DE"]

    def choices(self, E, T):
        """All of them."""
        del T
        return E

    def products(self, D, E):
        """x w."""
        return D * E


def _everyone(T: int, E: int) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(E, dtype=jnp.int32), (T, E))
