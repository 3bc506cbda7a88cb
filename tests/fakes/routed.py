"""Tokens and counts that tests of routers share."""

import jax
import jax.numpy as jnp
import numpy as np

T, D, E, V = 64, 8, 8, 40


NO_IDS = jnp.zeros(T, jnp.int32)


def skewed(seed=0):
    """Tokens with a common direction: plain top-k overloads the experts that point there."""
    return jax.random.normal(jax.random.key(seed), (T, D)) + 1.5


def params_of(router):
    return router.init(jax.random.key(1), D, E, V)


def load(plan):
    return np.asarray(plan.assigned_TE(T, E).sum(axis=0))


def violation(plan):
    load_E = load(plan)
    return load_E.max() / load_E.mean() - 1
