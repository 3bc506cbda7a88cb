"""A learned vector of each token id in each layer, as Gemma 3n's per-layer embeddings have it.

What a token's identity alone gives a layer, without experts: the control of hash layers (arXiv
2106.04426), whose tables tell each layer which token it reads.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from moe.params import Params


@dataclasses.dataclass(frozen=True)
class TokenVectors:
    """x + v[id] ahead of the feed-forward layer; zeros at first, so step 0 is that without them."""

    kind: ClassVar[str] = "token_vectors"

    def init(self, key: jax.Array, V: int, D: int) -> Params:
        """Makes vector_VD; it learns, and weight decay leaves it as it leaves the embedding."""
        del key
        return {"vector_VD": jnp.zeros((V, D))}

    def __call__(self, params: Params, x_BLD: jax.Array, id_BL: jax.Array) -> jax.Array:
        """Returns x_BLD with each token's vector added."""
        return x_BLD + jnp.take(params["vector_VD"], id_BL, axis=0).astype(x_BLD.dtype)
