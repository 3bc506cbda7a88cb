"""What the routers of a model chose for each token, token by token: for analysis.

The layer routes once more where its own call is intercepted, so that nothing is added to what
training runs.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from moe.model.depth import map_routers
from moe.model.flax_host import LinenMoE
from moe.model.layer import Aux, MoE
from moe.model.transformer import Transformer, forward
from moe.params import Params
from moe.plan import Choices, Mix, Tokens
from moe.registry import Mistake
from moe.routers.contract import Router, Routing


@flax.struct.dataclass
class Seen:
    """What one layer did with the T tokens of a call; see `moe.analysis.trace.LayerTrace`.

    Experts stand as the router prefers them, or as its plan lists them where it prefers none; with
    plans that experts make, and of routers that drop choices themselves, K is E.
    """

    expert_TK: jax.Array
    gate_TK: jax.Array
    kept_TK: jax.Array
    margin_T: jax.Array
    x_TD: jax.Array


def check(model: Transformer) -> None:
    """Raises Mistake, one line, for a model that chooses no experts."""
    if model.moe is None:
        raise Mistake("model.moe=none: a dense model has no routing to trace")
    for router in model.routers:
        if router.mixes:
            name = type(router).__name__
            raise Mistake(
                f"model.moe.router={name}: mixes all tokens into every slot, so it has no choices "
                "to trace"
            )


def watched(
    model: Transformer, params: Params, tokens: Tokens
) -> tuple[jax.Array, tuple[Seen, ...]]:
    """logits_BLV at evaluation, and what each MoE layer saw and chose, in depth; under jit."""
    with nn.intercept_methods(_look):
        logits_BLV, reports = forward(model, params, tokens)
    return logits_BLV, reports.seen if reports is not None else ()


def matrices(model: Transformer, params: Params) -> list[np.ndarray | None]:
    """The matrix of each layer's router, float32, None where it is not linear."""
    found: list[np.ndarray | None] = [None] * len(model.routers)

    def look(router, n):
        w_DE = model.routers[n].matrix(router)
        found[n] = None if w_DE is None else np.asarray(w_DE, np.float32)
        return router

    map_routers(params, look)
    return found


def _look(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
    """Calls a method of the model; what an MoE layer reports gets its Seen."""
    found = call(*args, **kwargs)
    host = context.module
    if not isinstance(host, LinenMoE) or context.method_name != "__call__":
        return found
    y_BLD, aux = found
    x_BLD, tokens, _ = args
    layer = host.layer.at_evaluation()
    return y_BLD, aux.replace(seen=_seen(layer, host.variables["params"], x_BLD, tokens, aux))


def _seen(layer: MoE, params: Params, x_BLD: jax.Array, tokens: Tokens, aux: Aux) -> Seen:
    """Groups one after the other, as their tokens lie."""
    E = layer.routed_experts
    x, routing, _ = layer.route(params, x_BLD, tokens, None)
    key = layer.router.keys(tokens.id_BL, tokens.label_BL).reshape(x.shape[:-1])
    dropped = aux.counts.dropped_TK
    if x.ndim == 2:
        seen = _of_group(layer.router, params["router"], E, (x, key, routing, dropped))
    else:
        each = jax.vmap(lambda *group: _of_group(layer.router, params["router"], E, group))
        seen = each(x, key, routing, dropped)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[x.ndim - 1 :]), seen)


def _of_group(router: Router, params: Params, E: int, group: tuple) -> Seen:
    x_TD, key_T, routing, dropped_TK = group
    preference_TE = router.preferences(params, x_TD, key_T, E)
    plan = routing.plan
    if isinstance(plan, Choices) and routing.asked_TE is None:
        expert_TK, gate_TK = plan.expert_TK, plan.gate_TK.astype(jnp.float32)
        kept_TK = (expert_TK < E) & (dropped_TK == 0)
    else:
        expert_TK, gate_TK, kept_TK = _listed(routing, dropped_TK, E)
    gate_TK = jnp.where(expert_TK < E, gate_TK, 0)
    rank_TK = jnp.where(expert_TK < E, jnp.arange(expert_TK.shape[1])[None], 2 * E)
    margin_T = jnp.full(x_TD.shape[0], jnp.nan)
    if preference_TE is not None:
        own_TK = jnp.take_along_axis(preference_TE, jnp.minimum(expert_TK, E - 1), axis=1)
        own_TK = jnp.where(expert_TK < E, own_TK, -jnp.inf)
        rank_TK = -own_TK
        margin_T = _margin(preference_TE, expert_TK, E)
    elif not isinstance(plan, Choices):
        rank_TK = jnp.where(expert_TK < E, -gate_TK, jnp.inf)
    order_TK = jnp.argsort(rank_TK, axis=1, stable=True)

    def ordered(value_TK):
        return jnp.take_along_axis(value_TK, order_TK, axis=1)

    return Seen(
        ordered(expert_TK).astype(jnp.int16),
        ordered(gate_TK),
        ordered(kept_TK),
        margin_T,
        x_TD.astype(jnp.float32),
    )


def _listed(
    routing: Routing, dropped_TK: jax.Array, E: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Experts, gates and whether they were served, a column each expert, of what was asked for."""
    plan, T = routing.plan, dropped_TK.shape[0]
    assert not isinstance(plan, Mix)  # `check` has refused it
    planned_TE = plan.assigned_TE(T, E) > 0
    asked_TE = planned_TE if routing.asked_TE is None else routing.asked_TE > 0
    lost_TE = jnp.zeros((T, E))
    if isinstance(plan, Choices):
        dropped_TK = jnp.broadcast_to(dropped_TK, plan.expert_TK.shape)
        lost_TE = Choices(plan.expert_TK, dropped_TK).weight_TE(T, E)
    expert_TE = jnp.where(asked_TE, jnp.arange(E, dtype=jnp.int32)[None], E)
    return expert_TE, plan.weight_TE(T, E), planned_TE & (lost_TE == 0)


def _margin(preference_TE: jax.Array, expert_TK: jax.Array, E: int) -> jax.Array:
    """Least preferred chosen minus best of the others; NaN where one of the two is not there."""
    chosen_TE = Choices(expert_TK, expert_TK).assigned_TE(0, E) > 0
    least_T = jnp.where(chosen_TE, preference_TE, jnp.inf).min(axis=1)
    best_T = jnp.where(chosen_TE, -jnp.inf, preference_TE).max(axis=1)
    margin_T = jnp.maximum(least_T - best_T, 0)  # the choice may have rounded otherwise
    return jnp.where(jnp.isfinite(margin_T), margin_T, jnp.nan)
