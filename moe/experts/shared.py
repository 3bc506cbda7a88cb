"""Experts that every token reads beside its own (DeepSeekMoE, arXiv 2401.06066)."""

import dataclasses
from typing import ClassVar

import jax

from moe.experts.contract import Experts, apply_one
from moe.experts.feed_forward import SwiGLU
from moe.params import Params, Size


@dataclasses.dataclass(frozen=True)
class SharedExpert:
    """A feed-forward network that every token reads beside its own (DeepSeekMoE, 2401.06066).

    Several shared experts are one of their summed width. Its output is added with weight 1.

    Attributes:
      ffn: the network.
    """

    kind: ClassVar[str] = "shared"
    ffn: Experts = SwiGLU()

    def init(self, key: jax.Array, D: int) -> Params:
        """Makes the weights of one expert."""
        return self.ffn.init(key, 1, D)

    def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
        """Returns y_BLD."""
        return apply_one(self.ffn, params, x_BLD)

    def sizes(self, path: str) -> tuple[Size, ...]:
        """What a mesh splits: the network's width."""
        return self.ffn.sizes(f"{path}.ffn")


@dataclasses.dataclass(frozen=True)
class GatedSharedExpert(SharedExpert):
    """The same, weighed by sigmoid(x w) (Qwen1.5-MoE)."""

    def init(self, key, D):
        """Makes the weights of one expert and w_D1."""
        keys = jax.random.split(key)
        gate = jax.random.normal(keys[0], (D, 1)) / D**0.5
        return {"ffn": self.ffn.init(keys[1], 1, D), "w_D1": gate}

    def __call__(self, params, x_BLD):
        """Returns y_BLD."""
        gate = jax.nn.sigmoid(x_BLD @ params["w_D1"].astype(x_BLD.dtype))
        return gate * super().__call__(params["ffn"], x_BLD)
