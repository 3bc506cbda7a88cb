"""What experts are: E networks of one shape, and the products that they are made of."""

from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from moe.params import Params

Product = Callable[[jax.Array, jax.Array], jax.Array]


def batched_product(x_ECD: jax.Array, w_EDF: jax.Array) -> jax.Array:
    """One matrix product per expert, on equally many rows each; returns ECF."""
    if x_ECD.shape[0] == 1:  # a plain product, which XLA:CPU runs faster than a batch of one
        return (x_ECD[0] @ w_EDF[0])[None]
    return jnp.einsum("ECD,EDF->ECF", x_ECD, w_EDF)


class Experts(Protocol):
    """E networks of one shape; a frozen dataclass of hyper-parameters."""

    kind: ClassVar[str] = "experts"
    width: int
    matrices: ClassVar[int]  # products of size D x F per token and expert

    def init(self, key: jax.Array, E: int, D: int) -> Params:
        """Makes float32 weights, each expert drawn independently."""
        ...

    def __call__(self, params: Params, x: jax.Array, product: Product = batched_product):
        """Applies expert e to its rows; `product(x, w)` knows which rows are whose.

        The default takes x_ECD; a grouped product takes rows x_RD sorted by expert.
        """
        ...


def apply_one(experts: Experts, params: Params, x_BLD: jax.Array) -> jax.Array:
    """y_BLD of a network with E = 1 that reads every token."""
    B, L, D = x_BLD.shape
    return experts(params, x_BLD.reshape(1, B * L, D)).reshape(B, L, D)
