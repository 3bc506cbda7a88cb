"""What experts are: E networks of one shape, the products they are made of, and a pool of them."""

from collections.abc import Callable
from typing import ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from moe.params import Params, Size
from moe.plan import Mix

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

    def __call__(
        self, params: Params, x: jax.Array, product: Product = batched_product
    ) -> jax.Array:
        """Applies expert e to its rows; `product(x, w)` knows which rows are whose.

        The default takes x_ECD; a grouped product takes rows x_RD sorted by expert.
        """
        ...

    def sizes(self, path: str) -> tuple[Size, ...]:
        """What a mesh splits; `path` is where the fields stand."""
        return (Size(f"{path}.width={self.width}", "F", self.width),)


@flax.struct.dataclass
class Pool:
    """E experts as a dispatcher serves them: networks with their parameters.

    Attributes:
      params: of all of them or, on a device that holds a part, of its own.
      experts: the networks (static).
      E: how many there are, those of other devices included (static).
    """

    params: Params
    experts: Experts = flax.struct.field(pytree_node=False)
    E: int = flax.struct.field(pytree_node=False)

    def __call__(self, x: jax.Array, product: Product = batched_product) -> jax.Array:
        """Applies each expert to its rows, as `Experts` do."""
        return self.experts(self.params, x, product)


def mix(plan: Mix, x_TD: jax.Array, experts: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """y_t = sum_ec combine_tec expert_e(sum_t' dispatch_t'ec x_t'), the soft plan as written.

    Args:
      experts: x_ECD -> y_ECD.
    """
    x_ECD = jnp.einsum("TEC,TD->ECD", plan.dispatch_TEC.astype(x_TD.dtype), x_TD)
    y_ECD = experts(x_ECD)
    return jnp.einsum("TEC,ECD->TD", plan.combine_TEC.astype(x_TD.dtype), y_ECD)


def apply_one(experts: Experts, params: Params, x_BLD: jax.Array) -> jax.Array:
    """y_BLD of a network with E = 1 that reads every token."""
    B, L, D = x_BLD.shape
    return experts(params, x_BLD.reshape(1, B * L, D)).reshape(B, L, D)
