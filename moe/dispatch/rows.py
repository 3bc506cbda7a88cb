"""Moving rows by index, with gathers in both directions.

The backward pass of a permutation is the gather by its inverse; autodiff would scatter, which is
far slower. A row index past the end reads zeros, so padding and drops need no masks.
"""

import jax
import jax.numpy as jnp


def _take(x_TD: jax.Array, row: jax.Array) -> jax.Array:
    return jnp.take(x_TD, row, axis=0, mode="fill", fill_value=0)


def _sum_rows(y_RD: jax.Array, row_TK: jax.Array) -> jax.Array:
    """sum_k y[row_TK[:, k]]; unrolled, since a reduction over a short axis is slow on CPU."""
    return jnp.asarray(sum(_take(y_RD, row_TK[:, k]) for k in range(row_TK.shape[1])))


@jax.custom_vjp
def take_rows(x_TD: jax.Array, token_R: jax.Array, row_TK: jax.Array) -> jax.Array:
    """x_RD[r] = x_TD[token_R[r]], or 0 where token_R is T or more.

    row_TK are the rows in which token t stands, R or more for none: the inverse, by which the
    gradient is gathered.
    """
    del row_TK
    return _take(x_TD, token_R)


take_rows.defvjp(
    lambda x_TD, token_R, row_TK: (_take(x_TD, token_R), row_TK),
    lambda row_TK, dx_RD: (_sum_rows(dx_RD, row_TK), None, None),
)


def _weighted_sum(y_RD, gate_TK, row_TK) -> jax.Array:
    gate_TK = gate_TK.astype(y_RD.dtype)
    K = row_TK.shape[1]
    return jnp.asarray(sum(_take(y_RD, row_TK[:, k]) * gate_TK[:, k, None] for k in range(K)))


@jax.custom_vjp
def combine_rows(
    y_RD: jax.Array, gate_TK: jax.Array, token_R: jax.Array, rank_R: jax.Array, row_TK: jax.Array
) -> jax.Array:
    """y_TD[t] = sum_k gate_TK[t, k] y_RD[row_TK[t, k]], rows R or more counting as 0.

    token_R and rank_R say whose row it is: choice rank_R[r] of token token_R[r], T or more for
    nobody's.
    """
    del token_R, rank_R
    return _weighted_sum(y_RD, gate_TK, row_TK)


def _combine_forward(y_RD, gate_TK, token_R, rank_R, row_TK):
    return _weighted_sum(y_RD, gate_TK, row_TK), (y_RD, gate_TK, token_R, rank_R, row_TK)


def _combine_backward(residuals, dy_TD):
    y_RD, gate_TK, token_R, rank_R, row_TK = residuals
    gate_R = gate_TK.at[token_R, rank_R].get(mode="fill", fill_value=0).astype(dy_TD.dtype)
    dy_RD = _take(dy_TD, token_R)
    product_R = jnp.einsum("RD,RD->R", dy_RD, y_RD, preferred_element_type=jnp.float32)
    dgate_TK = _take(product_R, row_TK).astype(gate_TK.dtype)
    return dy_RD * gate_R[:, None], dgate_TK, None, None, None


combine_rows.defvjp(_combine_forward, _combine_backward)
