"""What becomes of assignments that find no room."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp


class Overflow(Protocol):
    """Answers the assignments left_TK (bool) that a dispatcher did not serve."""

    kind: ClassVar[str] = "overflow"
    drops: ClassVar[bool] = True  # leaves any of them unserved

    def __call__(
        self,
        left_TK: jax.Array,
        x_TD: jax.Array,
        serve: Callable[[jax.Array], jax.Array],
        axes: tuple[str, ...] = (),
    ) -> tuple[jax.Array, jax.Array]:
        """Returns their outputs, weighted and summed into y_TD, and dropped_TK, as in `Stats`.

        Args:
          serve: what a dispatcher without limits makes of these assignments, x_TD -> y_TD.
          axes: of the mesh, over which devices call this together.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Drop(Overflow):
    """Leaves them unserved and counts them."""

    def __call__(self, left_TK, x_TD, serve, axes=()):
        """Returns zeros, and what is dropped."""
        return jnp.zeros_like(x_TD), left_TK.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Exact(Overflow):
    """Serves them by a slower path, which is taken only in steps that need it."""

    drops: ClassVar[bool] = False

    def __call__(self, left_TK, x_TD, serve, axes=()):
        """Returns the outputs, and no drops."""
        count = jnp.sum(left_TK)
        # All devices take the same branch: there may be collectives in it.
        needed = (jax.lax.psum(count, axes) if axes else count) > 0
        y_TD = jax.lax.cond(needed, serve, jnp.zeros_like, x_TD)
        return y_TD, jnp.zeros_like(left_TK, jnp.float32)
