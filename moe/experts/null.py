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

    Routers here choose layer by layer; those of MoE++ add W_g times the logits of the layer before
    (section 3.2, gating residuals). Costs count an even share of the choices, count / E, whatever
    loss_weight is.

    Attributes:
      zero: experts whose output is 0: the choice is discarded.
      copy: experts whose output is their input: the layer is skipped.
      constant: experts with a learned vector v: output a_1 x + a_2 v, (a_1, a_2) = softmax(W x).
      loss_weight: of null experts in losses that balance probabilities, the tau of section 3.3.
        MoE++ has 0.75 in its models, so that more tokens go there; 1, the default, treats all
        experts alike.
    """

    kind: ClassVar[str] = "null"
    zero: Annotated[int, AtLeast(0)] = 1
    copy: Annotated[int, AtLeast(0)] = 1
    constant: Annotated[int, AtLeast(0)] = 2
    loss_weight: Annotated[float, AtLeast(0)] = 1.0

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

    def products(self, D: int) -> int:
        """Multiply-adds of its matrix products for one row of each expert: W x."""
        return 2 * self.constant * D

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

    def weigh(self, terms: dict[str, jax.Array], E: int) -> dict[str, jax.Array]:
        """The terms of a router's losses with the probabilities of null experts times their weight.

        The load-balance loss of E feed-forward and n null experts is then (E + n) sum_e weight_e
        f_e P_e, and (E + weight n) / (E + n) at balance.
        """
        if self.loss_weight == 1 or "probability_TE" not in terms:
            return terms
        weight_E = jnp.ones(E + self.count).at[E:].set(self.loss_weight)
        return {**terms, "probability_TE": terms["probability_TE"] * weight_E[None]}

    def check(self, path: str) -> None:
        """Raises Mistake where there is none."""
        if not self.count:
            raise Mistake(f"{path}: has no expert; set {path}=none for none")
