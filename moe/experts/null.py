"""Experts that cost next to nothing (MoE++, arXiv 2410.07348, section 3.1)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from moe.params import Params
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
    zero: int = 1
    copy: int = 1
    constant: int = 2

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
        mix = jax.nn.softmax(jnp.einsum("ECD,EDX->ECX", x_ZCD, weights), axis=-1)
        vector_ZCD = params["vector_ED"].astype(x_ECD.dtype)[:, None]
        constant_ZCD = mix[..., :1] * x_ZCD + mix[..., 1:] * vector_ZCD
        zero_ZCD = jnp.zeros_like(x_ECD[: self.zero])
        return jnp.concatenate([zero_ZCD, x_ECD[self.zero : skipped], constant_ZCD])

    def check(self, path: str) -> None:
        """Raises Mistake for negative counts."""
        for name in ("zero", "copy", "constant"):
            if getattr(self, name) < 0:
                raise Mistake(f"{path}.{name}={getattr(self, name)}: must be >= 0")
        if not self.count:
            raise Mistake(f"{path}: has no expert; set {path}=none for none")
