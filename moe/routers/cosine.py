"""Cosine routing in a low dimension with a learned temperature (X-MoE, arXiv 2204.09179)."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from moe.fields import AtLeast
from moe.routers.parts.ranking import product, unit
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class Cosine(TopK):
    """Logits are cos(W x, e_i) / temperature; everything else is top-k's.

    Attributes:
      width: dimension in which tokens and experts are compared; 0 is half the experts, at least 4.
      temperature: at step 0; learned as a logarithm, never below 0.01.
    """

    width: Annotated[int, AtLeast(0, "0 is half the experts")] = 0
    temperature: Annotated[float, AtLeast(0.01)] = 0.3

    def init(self, key, D, E, V):
        """Makes w_DA, w_AE and log_temperature."""
        params = super().init(key, D, E, V)
        width = self._width(E)
        keys = jax.random.split(key)
        del params["w_DE"]
        return {
            **params,
            "w_DA": jax.random.normal(keys[0], (D, width)) / D**0.5,
            "w_AE": jax.random.normal(keys[1], (width, E)) / width**0.5,
            "log_temperature": jnp.log(jnp.float32(self.temperature)),
        }

    def _width(self, E: int) -> int:
        return self.width or max(4, E // 2)

    def products(self, D, E):
        """W x and the cosines, and what the noise needs."""
        return (D + E) * self._width(E) + self.noise.products(D, E)

    def weights(self, params, rng):
        """The experts' directions w_AE."""
        del rng
        return params["w_AE"]

    def compare(self, params, x_TD, rng):
        """The cosines over the temperature."""
        low_TA = product(x_TD, params["w_DA"])
        inverse = jnp.exp(-jnp.maximum(params["log_temperature"], jnp.log(0.01)))
        return product(unit(low_TA, 1), unit(self.weights(params, rng), 0)) * inverse

    def matrix(self, params):
        """None: a cosine is not linear."""
        del params
        return None
