"""Causal grouped-query attention (arXiv 2305.13245) with rotary positions (2104.09864)."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from moe.devices import sharding
from moe.fields import Above, AtLeast
from moe.kernels.attention import blocked
from moe.params import Params, Size
from moe.registry import Mistake


def rotate(x_BLHA: jax.Array, base: float) -> jax.Array:
    """Turns channel pair (a, a + A/2) by position * base^(-2a/A); computes in float32."""
    L, A = x_BLHA.shape[1], x_BLHA.shape[3]
    frequency = base ** (-jnp.arange(A // 2, dtype=jnp.float32) * 2 / A)
    angle = jnp.outer(jnp.arange(L, dtype=jnp.float32), frequency)[None, :, None, :]
    first, second = jnp.split(x_BLHA.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BLHA.dtype)


def normalize(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Divides the last axis by its root mean square (float32) and scales it."""
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + 1e-6)
    return (x32 * inverse * jnp.expand_dims(scale, range(x.ndim - 1))).astype(x.dtype)


def attend(query_BLHA: jax.Array, key_BLJA: jax.Array, value_BLJA: jax.Array) -> jax.Array:
    """Causal attention in the form that suits the platform; see `moe.kernels.attention`."""
    if sharding.platform() == "cpu":
        return blocked(query_BLHA, key_BLJA, value_BLJA)
    return jax.nn.dot_product_attention(query_BLHA, key_BLJA, value_BLJA, is_causal=True)


def project(x_BLD: jax.Array, w_DX: jax.Array) -> jax.Array:
    """x w with every other axis of w in the result; one plain matrix product, fast on CPU."""
    B, L, D = x_BLD.shape
    return (x_BLD.reshape(B * L, D) @ w_DX.reshape(D, -1)).reshape(B, L, *w_DX.shape[1:])


@dataclasses.dataclass(frozen=True)
class Attention:
    """H query heads of A channels read J key/value heads, each shared by H/J of them.

    Attributes:
      num_heads, num_kv_heads, head_width: H, J, A; J divides H, A is even.
      qk_norm: RMSNorm on queries and keys, per head (arXiv 2302.05442).
      rope_base: base of the rotary frequencies.
    """

    num_heads: Annotated[int, AtLeast(1)] = 4
    num_kv_heads: Annotated[int, AtLeast(1)] = 2
    head_width: Annotated[int, AtLeast(1)] = 32
    qk_norm: bool = True
    rope_base: Annotated[float, Above(0)] = 10_000.0

    def init(self, key: jax.Array, D: int, N: int) -> Params:
        """Makes the projections; the one into the residual path shrinks by 1 / sqrt(2 N).

        GPT-2 (Radford et al. 2019, section 2.3) shrinks that of the feed-forward layers as well.
        Here these keep their size, 2.8 times as much at N = 4, and so do experts.
        """
        H, J, A = self.num_heads, self.num_kv_heads, self.head_width
        keys = jax.random.split(key, 4)
        params = {
            "w_query_DHA": jax.random.normal(keys[0], (D, H, A)) / D**0.5,
            "w_key_DJA": jax.random.normal(keys[1], (D, J, A)) / D**0.5,
            "w_value_DJA": jax.random.normal(keys[2], (D, J, A)) / D**0.5,
            "w_out_HAD": jax.random.normal(keys[3], (H, A, D)) / (2 * N * H * A) ** 0.5,
        }
        norms = {"query_norm_A": jnp.ones(A), "key_norm_A": jnp.ones(A)}
        return {**params, **norms} if self.qk_norm else params

    def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
        """Mixes positions 0..l into position l; returns y_BLD in the dtype of x_BLD."""
        weight = {name: w.astype(x_BLD.dtype) for name, w in params.items()}
        query_BLHA = project(x_BLD, weight["w_query_DHA"])
        key_BLJA = project(x_BLD, weight["w_key_DJA"])
        value_BLJA = project(x_BLD, weight["w_value_DJA"])
        if self.qk_norm:
            query_BLHA = normalize(query_BLHA, params["query_norm_A"])
            key_BLJA = normalize(key_BLJA, params["key_norm_A"])
        mixed_BLHA = attend(
            rotate(query_BLHA, self.rope_base), rotate(key_BLJA, self.rope_base), value_BLJA
        )
        H, A, D = weight["w_out_HAD"].shape
        mixed_BLX = mixed_BLHA.reshape(*x_BLD.shape[:2], H * A)
        return project(mixed_BLX, weight["w_out_HAD"].reshape(H * A, D))

    def sizes(self, path: str) -> tuple[Size, ...]:
        """What a mesh splits: the query heads; key/value heads that do not divide stay whole."""
        return (Size(f"{path}.num_heads={self.num_heads}", "H", self.num_heads),)

    def check(self, path: str) -> None:
        """Raises Mistake, one line that starts with `path`, for impossible fields."""
        if self.num_heads % self.num_kv_heads:
            raise Mistake(
                f"{path}.num_kv_heads={self.num_kv_heads}: must divide num_heads={self.num_heads}"
            )
        if self.head_width % 2:
            raise Mistake(f"{path}.head_width={self.head_width}: must be even")
