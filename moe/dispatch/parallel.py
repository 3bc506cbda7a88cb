"""Dispatch on a mesh: every device serves its own groups or tokens, and experts are shared.

`serve` runs a layer's work under `jax.shard_map` over the mesh in use: tokens are split over the
batch axes, experts over the expert axis, their hidden width over the tensor axis. What comes out
does not depend on the mesh.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from moe.devices import sharding
from moe.devices.sharding import EXPERT, FSDP, TENSOR
from moe.dispatch.contract import Dispatch, Stats
from moe.experts.contract import Pool
from moe.plan import Choices, Plan
from moe.registry import Mistake

Serve = Callable[[Plan, jax.Array, Pool], tuple[jax.Array, Stats]]


def serve(
    dispatch: Dispatch, plan: Plan, x: jax.Array, pool: Pool, groups: int
) -> tuple[jax.Array, Stats]:
    """What the dispatcher makes of every group: outputs as x, statistics summed over groups.

    Which assignments were dropped is told as x is: of every group, of every token.

    Args:
      plan, x: with a leading axis of groups where there are several.

    The mesh divides what the experts have of E and F: `MoE` refuses others. A plan over all tokens
    of a batch that are not tokenwise cannot be split: the compiler distributes that work as it can.
    """
    here = functools.partial(_serve_here, dispatch)
    each = here if groups == 1 else _over_groups(here)
    axes, whole = sharding.batch_axes(), groups == 1
    split = (
        not whole
        or (dispatch.tokenwise and isinstance(plan, Choices))
        or sharding.batch_parts() == 1
    )
    if not split or max(sharding.sizes().values(), default=1) == 1:
        return each(plan, x, pool)
    if x.shape[0] % sharding.batch_parts():
        what = "tokens" if whole else "groups of tokens"
        raise Mistake(
            f"model.moe.dispatch: {what}={x.shape[0]} must be divisible by the "
            f"{sharding.batch_parts()} devices that hold them"
        )

    def body(plan, x, pool):
        y, stats = each(plan, x, pool)
        load_E = jax.lax.psum(stats.load_E, axes)
        return y, Stats(load_E, stats.dropped_TK, jax.lax.pmean(stats.slots_used, axes))

    tokens = jax.P(axes)
    of_stats: Any = jax.P(), tokens, jax.P()
    return jax.shard_map(
        body,
        in_specs=(tokens, tokens, sharding.specs(pool, without=(FSDP,))),
        out_specs=(tokens, Stats(*of_stats)),
    )(plan, x, pool)


def _over_groups(function: Serve) -> Serve:
    def all_groups(plan, x_GTD, pool):
        y_GTD, stats = jax.vmap(function, (0, 0, None))(plan, x_GTD, pool)
        load_E = stats.load_E.sum(axis=0)
        return y_GTD, Stats(load_E, stats.dropped_TK, stats.slots_used.mean())

    return all_groups


def _serve_here(
    dispatch: Dispatch, plan: Plan, x_TD: jax.Array, pool: Pool
) -> tuple[jax.Array, Stats]:
    """What the dispatcher makes of one group, or of this device's part of it inside `serve`.

    Devices along the tensor axis hold slices of the experts' hidden width, so outputs are sums
    over them.
    """
    here = sharding.inside()
    if TENSOR in here:
        plan, x_TD = jax.tree.map(lambda a: jax.lax.pcast(a, TENSOR, to="varying"), (plan, x_TD))
    if EXPERT in here:
        y_TD, stats = dispatch.exchange(plan, x_TD, pool, sharding.sizes()[EXPERT])
    else:
        y_TD, stats = dispatch(plan, x_TD, pool)
    if TENSOR in here:
        y_TD, stats = jax.lax.psum(y_TD, TENSOR), jax.lax.pmean(stats, TENSOR)
    return y_TD, stats


def load(plan: Choices, E: int) -> jax.Array:
    """load_E of the tokens of one device."""
    return plan.assigned_TE(plan.expert_TK.shape[0], E).sum(axis=0)


def on_device(expert: jax.Array, own: int) -> jax.Array:
    """Numbers of experts among this device's `own` ones; `own` for those of other devices."""
    mine = expert - own * jax.lax.axis_index(EXPERT)
    return jnp.where((mine >= 0) & (mine < own), mine, own)
