"""Soft MoE: every slot reads a weighted mean of all tokens (Puigcerver et al., arXiv 2308.00951).

Nothing is chosen and nothing dropped, and every output depends on every token of the group: no
causal language model.
"""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from moe.fields import AtLeast
from moe.plan import Mix
from moe.routers.contract import Router, Routing
from moe.routers.parts.ranking import unit


@dataclasses.dataclass(frozen=True)
class Soft(Router):
    """dispatch = softmax over tokens, combine = softmax over slots, of scale * cos(x, phi).

    phi has no weight decay: its columns are normalised, so its size changes no output.

    Attributes:
      slots: slots per expert; the experts' work is num_experts * slots rows for a group.
      scale: of the cosines at step 0; learned.
    """

    slots: Annotated[int, AtLeast(1)] = 4
    scale: Annotated[float, AtLeast(0)] = 1.0

    causal: ClassVar[bool] = False
    causal_in_training: ClassVar[bool] = False
    batch_invariant: ClassVar[bool] = False
    mixes: ClassVar[bool] = True

    def init(self, key, D, E, V):
        """Makes phi_DEC and scale."""
        del V
        phi_DEC = jax.random.normal(key, (D, E, self.slots)) / D**0.5
        return {"phi_DEC": phi_DEC, "scale": jnp.float32(self.scale)}

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD: eq. 1-3, normalised as in section 2.3."""
        del id_T, rng
        x_TD = unit(x_TD.astype(jnp.float32), axis=1)
        phi_DEC = unit(params["phi_DEC"], axis=0)
        logits_TEC = params["scale"] * jnp.einsum("TD,DEC->TEC", x_TD, phi_DEC, precision="highest")
        dispatch_TEC = jax.nn.softmax(logits_TEC, axis=0)
        combine_TEC = jax.nn.softmax(logits_TEC, axis=(1, 2))
        return Routing(Mix(dispatch_TEC, combine_TEC))

    def choices(self, E, T):
        """Expert rows per token."""
        return E * self.slots / T

    def products(self, D, E):
        """x phi."""
        return D * E * self.slots
