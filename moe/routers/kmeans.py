"""Nearest-centroid routing: clusters of hidden states, moved by an average instead of a gradient.

Spherical k-means with exponential moving averages, as in the Routing Transformer
(arXiv 2003.05997, section 4.1) for attention; here it chooses experts.
"""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from moe.fields import Within
from moe.params import state, with_state
from moe.plan import Choices
from moe.routers.contract import Router, Routing, check_choices
from moe.routers.parts.ranking import choose, unit


@dataclasses.dataclass(frozen=True)
class KMeans(Router):
    """Each token goes to the k centroids of highest cosine; every gate is the constant 1/k.

    Attributes:
      k: experts per token, in [1, num_experts].
      decay: of the moving average, once per optimizer step, in [0, 1).
    """

    k: int = 1
    decay: Annotated[float, Within(0, 1, "[)")] = 0.99

    learned: ClassVar[bool] = False

    def init(self, key, D, E, V):
        """Makes state.centroid_ED, unit vectors."""
        del V
        return with_state({}, centroid_ED=unit(jax.random.normal(key, (E, D)), axis=1))

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD; stats hold the sum of the unit vectors that each centroid got."""
        del rng
        unit_TD = jax.lax.stop_gradient(unit(x_TD.astype(jnp.float32), axis=1))
        cos_TE = jax.lax.stop_gradient(self.preferences(params, x_TD, id_T, E))
        expert_TK = choose(cos_TE, self.k)
        plan = Choices(expert_TK, jnp.full(expert_TK.shape, 1 / self.k, jnp.float32))
        sum_ED = jnp.einsum("TE,TD->ED", plan.assigned_TE(x_TD.shape[0], E), unit_TD)
        return Routing(plan, metrics={"cosine": cos_TE.max(axis=1).mean()}, stats={"sum": sum_ED})

    def preferences(self, params, x_TD, id_T, E):
        """The cosines."""
        del id_T, E
        unit_TD, centroid_ED = unit(x_TD.astype(jnp.float32), axis=1), state(params)["centroid_ED"]
        return jnp.einsum("TD,ED->TE", unit_TD, centroid_ED, precision="highest")

    def update(self, params, load_E, stats):
        """Moves each centroid towards the mean of its tokens; one without tokens stays."""
        centroid_ED = state(params)["centroid_ED"]
        mean_ED = stats["sum"] / jnp.maximum(load_E, 1)[:, None]
        moved_ED = unit(self.decay * centroid_ED + (1 - self.decay) * mean_ED, axis=1)
        kept = (load_E == 0)[:, None]
        return with_state(params, centroid_ED=jnp.where(kept, centroid_ED, moved_ED))

    def choices(self, E, T):
        """k."""
        del E, T
        return self.k

    def products(self, D, E):
        """The cosines, and the sums by which the centroids move."""
        return 2 * D * E

    def ranks(self, E):
        """k."""
        del E
        return self.k

    def check(self, path, num_experts):
        """Raises Mistake for impossible k."""
        check_choices(path, self.k, num_experts)
