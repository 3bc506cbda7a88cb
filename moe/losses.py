"""Auxiliary router losses, as sums first and one division last, so that any split is exact."""

import jax
import jax.numpy as jnp


def load_balance(
    count_E: jax.Array, probability_sum_E: jax.Array, tokens: int | jax.Array
) -> jax.Array:
    """E * sum_e f_e P_e, which is 1 at perfect balance for every K.

    Switch Transformer (arXiv 2101.03961) eq. 4-6, with f normalised to sum to 1 over experts:
    papers that let f sum to K report K times this value. f carries no gradient.

    Args:
      count_E: assignments per expert over the scope (device, batch, ...), before drops.
      probability_sum_E: router probabilities summed over the same tokens.
      tokens: the number of those tokens.
    """
    E = count_E.shape[-1]
    f_E = jax.lax.stop_gradient(count_E / jnp.maximum(count_E.sum(-1, keepdims=True), 1))
    return E * jnp.sum(f_E * probability_sum_E / tokens, axis=-1)


def z_loss_sum(logits_TE: jax.Array) -> jax.Array:
    """sum_t (logsumexp_e logits)^2; over T it is the router z-loss, ST-MoE (2202.08906) eq. 5."""
    return jnp.sum(jnp.square(jax.nn.logsumexp(logits_TE, axis=-1)))
