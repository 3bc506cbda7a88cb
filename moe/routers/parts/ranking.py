"""The router's matrix product and the k best of each row."""

import jax
import jax.numpy as jnp

from moe.devices import sharding


def init_matrix(key: jax.Array, D: int, E: int, scale: float) -> jax.Array:
    """w_DE, normal with standard deviation scale / sqrt(D)."""
    return jax.random.normal(key, (D, E)) * (scale / D**0.5)


def product(x_TD: jax.Array, w_DE: jax.Array) -> jax.Array:
    """x w in float32 at the highest precision that the device has."""
    return jnp.einsum("TD,DE->TE", x_TD.astype(jnp.float32), w_DE, precision="highest")


def choose(preference_TE: jax.Array, k: int) -> jax.Array:
    """Indices (int32) of the k largest of each row, ties to the lowest; carries no gradient."""
    return largest(jax.lax.stop_gradient(preference_TE), k)[1].astype(jnp.int32)


def choose_by_both(first_TE: jax.Array, then_TE: jax.Array, k: int) -> jax.Array:
    """`choose` by `first_TE` where it differs, and by `then_TE` where it ties."""
    first_TE, then_TE = map(jax.lax.stop_gradient, (first_TE, then_TE))
    least_T1 = largest(first_TE, k)[0][:, -1:]
    tied_TE = jnp.where(first_TE == least_T1, then_TE, -jnp.inf)
    expert_TK = choose(jnp.where(first_TE > least_T1, jnp.inf, tied_TE), k)
    for value_TE in (then_TE, first_TE) if k > 1 else ():  # stable, so the last one rules
        expert_TK = take(expert_TK, choose(take(value_TE, expert_TK), k))
    return expert_TK


def largest(value_TE: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k largest of each row and their places, ties to the lowest place.

    Barriers keep XLA:CPU from turning a slice of the result into a full sort. On a mesh every
    device ranks its own rows.
    """
    if sharding.sizes():
        place_TK = sharding.by_row(
            lambda rows: jax.lax.top_k(rows, k)[1], jax.lax.stop_gradient(value_TE)
        )
        return take(value_TE, place_TK), place_TK
    value_TK, place_TK = jax.lax.top_k(value_TE, k)
    return jax.lax.optimization_barrier(value_TK), jax.lax.optimization_barrier(place_TK)


def take(value_TE: jax.Array, expert_TK: jax.Array) -> jax.Array:
    """value_TK[t, k] = value_TE[t, expert_TK[t, k]]."""
    return jnp.take_along_axis(value_TE, expert_TK, axis=1)


def unit(vector: jax.Array, axis: int) -> jax.Array:
    """Vectors of norm 1 along an axis, at any scale; those shorter than 1e-18 are 0, without slope.

    The derivative is 1 / norm, and the square of 1e18 is still finite where gradients are clipped.
    """
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(vector), axis=axis, keepdims=True))
    short = size < 1e-18
    scaled = jnp.where(short, 0, vector) / jnp.where(short, 1, size)
    square = jnp.sum(jnp.square(scaled), axis=axis, keepdims=True)  # in [1, length]
    return scaled * jax.lax.rsqrt(jnp.where(short, 1, square))
