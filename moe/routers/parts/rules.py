"""How the bias of loss-free balancing follows the load (arXiv 2408.15664)."""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp


class Rule(Protocol):
    """How the bias follows the load."""

    kind: ClassVar[str] = "rule"

    def __call__(self, load_E: jax.Array) -> jax.Array:
        """The change of the bias for rate 1; load_E counts assignments of one optimizer step."""
        ...


@dataclasses.dataclass(frozen=True)
class Sign(Rule):
    """sign(mean load - load_e): the paper's algorithm 1."""

    def __call__(self, load_E):
        """Returns -1, 0 or 1 for each expert."""
        return jnp.sign(load_E.mean() - load_E)


@dataclasses.dataclass(frozen=True)
class Proportional(Rule):
    """(mean load - load_e) / mean load: the paper's variant, with the error made relative.

    The paper multiplies the error in tokens; relative, a rate means the same at every batch size.
    """

    def __call__(self, load_E):
        """Returns the relative shortage of each expert."""
        mean = load_E.mean()
        return (mean - load_E) / jnp.where(mean > 0, mean, 1)
