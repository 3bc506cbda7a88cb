"""The feed-forward experts, the experts that compute nothing, and the one that everybody reads.

A dense feed-forward layer is an Experts object with E = 1.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from moe.params import Params
from moe.registry import Mistake

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


def _dense_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal with standard deviation 1/sqrt(fan in); fan in is the next to last axis."""
    return jax.random.normal(key, shape) / shape[-2] ** 0.5


@dataclasses.dataclass(frozen=True)
class SwiGLU(Experts):
    """(silu(x w_gate) * (x w_in)) w_out, three matrices (arXiv 2002.05202, eq. 6).

    Attributes:
      width: hidden width F of one expert.
    """

    width: int = 256
    matrices: ClassVar[int] = 3

    def init(self, key, E, D):
        """Makes w_gate_EDF, w_in_EDF and w_out_EFD."""
        keys = jax.random.split(key, 3)
        return {
            "w_gate_EDF": _dense_init(keys[0], (E, D, self.width)),
            "w_in_EDF": _dense_init(keys[1], (E, D, self.width)),
            "w_out_EFD": _dense_init(keys[2], (E, self.width, D)),
        }

    def __call__(self, params, x, product=batched_product):
        """Applies the experts; computes in the dtype of x."""
        gate, up, down = (
            params[name].astype(x.dtype) for name in ("w_gate_EDF", "w_in_EDF", "w_out_EFD")
        )
        return product(jax.nn.silu(product(x, gate)) * product(x, up), down)


@dataclasses.dataclass(frozen=True)
class ReLU(Experts):
    """relu(x w_in) w_out, two matrices, as in Switch (arXiv 2101.03961).

    Attributes:
      width: hidden width F of one expert.
    """

    width: int = 256
    matrices: ClassVar[int] = 2

    def init(self, key, E, D):
        """Makes w_in_EDF and w_out_EFD."""
        keys = jax.random.split(key, 2)
        return {
            "w_in_EDF": _dense_init(keys[0], (E, D, self.width)) * 2**0.5,
            "w_out_EFD": _dense_init(keys[1], (E, self.width, D)),
        }

    def __call__(self, params, x, product=batched_product):
        """Applies the experts; computes in the dtype of x."""
        w_in, w_out = (params[name].astype(x.dtype) for name in ("w_in_EDF", "w_out_EFD"))
        return product(jax.nn.relu(product(x, w_in)), w_out)


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
