"""The size of an MoE layer's output at step 0, beside that of a dense layer."""

from typing import cast

import jax
import jax.numpy as jnp

from moe.params import Params, with_state
from moe.plan import Choices, Slots
from moe.routers.contract import Router

TOKENS = 1024  # that the factor is measured on; its error is some per cent


def init(router: Router, key: jax.Array, D: int, E: int, V: int) -> Params:
    """Makes state.scale, 1 / rms over tokens of the length of a token's gates.

    Experts are drawn independently, so outputs of rms r add up to r sqrt(sum_e gate_e^2). Gates
    are those of this router, drawn anew, on random tokens of unit variance, as norms give them.
    """
    router_key, x_key, id_key = jax.random.split(key, 3)
    params = router.init(router_key, D, E, V)
    x_TD = jax.random.normal(x_key, (TOKENS, D))
    id_T = jax.random.randint(id_key, (TOKENS,), 0, V)
    plan = cast(Choices | Slots, router(params, x_TD, id_T, E, None).plan)  # `MoE.check` sees to it
    square = jnp.square(plan.weight_TE(TOKENS, E)).sum(axis=1).mean()
    return with_state({}, scale=jax.lax.rsqrt(jnp.maximum(square, 1e-12)))
