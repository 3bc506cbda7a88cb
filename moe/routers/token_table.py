"""A learned table from token id to logits: the choice of a hash layer, found by gradient descent.

The control between hash layers (arXiv 2106.04426) and learned routers: it knows the token and
nothing of its place, as a fixed table does, and it learns, as a router does.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from moe.params import Params, named
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class TokenTable(TopK):
    """Top-k whose logits are the row of the token's id in a learned table.

    Everything else is as in top-k; noise on the input falls on the row.

    Attributes:
      init_scale: logits start with this standard deviation, as those of top-k do.
    """

    needs_ids: ClassVar[bool] = True

    def init(self, key, D, E, V):
        """Makes logits_VE, which weight decay leaves as it is, and what the rest of top-k needs."""
        params = super().init(key, E, E, V)
        params.pop("w_DE")
        logits_VE = self.init_scale * jax.random.normal(named(key, "table"), (V, E))
        return {"logits_VE": logits_VE, **params}

    def weights(self, params, rng):
        """The table."""
        del rng
        return params["logits_VE"]

    def compare(self, params, x_TD, rng):
        """The rows as they are: see `route`."""
        del params, rng
        return x_TD

    def rows(self, params: Params, id_T: jax.Array) -> jax.Array:
        """The rows of the tokens (TE); ids above the table read its last one."""
        return jnp.take(params["logits_VE"], id_T, axis=0, mode="clip")

    def route(self, params, x_TD, id_T, rng):
        """Routes the tokens by their rows."""
        return super().route(params, self.rows(params, id_T), id_T, rng)

    def preferences(self, params, x_TD, id_T, E):
        """The rows, where top-k has the logits."""
        return super().preferences(params, self.rows(params, id_T), id_T, E)

    def matrix(self, params):
        """None: nothing rests on x."""
        del params
        return None

    def products(self, D, E):
        """Those of the noise alone: the table is looked up."""
        return self.noise.products(E, E)
