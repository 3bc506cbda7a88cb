"""Experts that cost next to nothing (MoE++, arXiv 2410.07348, section 3.1)."""

import dataclasses
import functools
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from moe.experts.contract import mix
from moe.fields import AtLeast
from moe.params import Params
from moe.plan import Mix, Plan
from moe.registry import Mistake


@dataclasses.dataclass(frozen=True)
class NullExperts:
    """Experts that cost next to nothing (MoE++, arXiv 2410.07348, section 3.1).

    They stand behind the feed-forward experts in the router's numbering, in the order of the
    fields, so every router can send a token to them.

    Attributes:
      zero: experts whose output is 0: the choice is discarded.
      copy: experts whose output is their input: the layer is skipped.
      constant: experts with a learned vector v: output a_1 x + a_2 v, (a_1, a_2) = softmax(W x).
    """

    kind: ClassVar[str] = "null"
    zero: Annotated[int, AtLeast(0)] = 1
    copy: Annotated[int, AtLeast(0)] = 1
    constant: Annotated[int, AtLeast(0)] = 2

    @property
    def count(self) -> int:
        """All of them."""
        return self.zero + self.copy + self.constant

    def init(self, key: jax.Array, D: int) -> Params:
        """Makes vector_ED and w_ED2 of the constant experts."""
        keys, Z = jax.random.split(key), self.constant
        return {
            "vector_ED": jax.random.normal(keys[0], (Z, D)),
            "w_ED2": jax.random.normal(keys[1], (Z, D, 2)) / D**0.5,
        }

    def __call__(self, params: Params, x_ECD: jax.Array) -> jax.Array:
        """Applies null expert e to x_ECD[e]."""
        skipped = self.zero + self.copy
        x_ZCD = x_ECD[skipped:]
        weights = params["w_ED2"].astype(x_ECD.dtype)
        share = jax.nn.softmax(jnp.einsum("ECD,EDX->ECX", x_ZCD, weights), axis=-1)
        vector_ZCD = params["vector_ED"].astype(x_ECD.dtype)[:, None]
        constant_ZCD = share[..., :1] * x_ZCD + share[..., 1:] * vector_ZCD
        zero_ZCD = jnp.zeros_like(x_ECD[: self.zero])
        return jnp.concatenate([zero_ZCD, x_ECD[self.zero : skipped], constant_ZCD])

    def serve(self, params: Params, plan: Plan, x_TD: jax.Array, E: int) -> jax.Array:
        """What they add to the outputs of one group whose plan has E feed-forward experts first."""
        if isinstance(plan, Mix):
            rest = Mix(plan.dispatch_TEC[:, E:], plan.combine_TEC[:, E:])
            return mix(rest, x_TD, functools.partial(self, params))
        T, D = x_TD.shape
        y_ETD = self(params, jnp.broadcast_to(x_TD, (self.count, T, D)))
        weight_TE = plan.weight_TE(T, E + self.count)[:, E:].astype(x_TD.dtype)
        return jnp.einsum("TE,ETD->TD", weight_TE, y_ETD)

    def check(self, path: str) -> None:
        """Raises Mistake where there is none."""
        if not self.count:
            raise Mistake(f"{path}: has no expert; set {path}=none for none")
