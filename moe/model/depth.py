"""MoE layers in depth: what they report, and their parameters one after the other."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from moe.model.layer import Aux
from moe.params import Params
from moe.routers.parts.losses import Terms


@flax.struct.dataclass
class Reports:
    """What the N MoE layers of a model report, in depth; see `moe.model.layer.Aux`.

    Attributes:
      losses, metrics, sums, stats: those of each layer.
      load_NE, slots_used_N: the dispatchers' counts.
      assigned_NBLE, dropped_NBL: assignments that each token asked for, and that were not served.
      seen: of each layer, None unless an analysis watches it.
    """

    losses: tuple[Terms, ...]
    metrics: tuple[Terms, ...]
    sums: tuple[Terms, ...]
    stats: tuple[Terms, ...]
    load_NE: jax.Array
    slots_used_N: jax.Array
    assigned_NBLE: jax.Array
    dropped_NBL: jax.Array
    seen: tuple[Any, ...]

    @property
    def unserved_NBL(self) -> jax.Array:
        """1 for each token that no expert serves: dropped, picked by none, or without a choice."""
        served_NBL = self.assigned_NBLE.sum(axis=-1) - self.dropped_NBL
        return (served_NBL <= 0).astype(jnp.float32)


def in_depth_order(places: tuple[Aux, ...]) -> Reports | None:
    """Takes apart what the places of a period report, stacked over periods."""
    if not places:
        return None
    length = places[0].assigned_BLE.shape[0]
    layers = [jax.tree.map(lambda a, i=i: a[i], aux) for i in range(length) for aux in places]
    return Reports(
        losses=tuple(aux.losses for aux in layers),
        metrics=tuple(aux.metrics for aux in layers),
        sums=tuple(aux.sums for aux in layers),
        stats=tuple(aux.stats for aux in layers),
        load_NE=jnp.stack([aux.counts.load_E for aux in layers]),
        slots_used_N=jnp.stack([aux.counts.slots_used for aux in layers]),
        assigned_NBLE=jnp.stack([aux.assigned_BLE for aux in layers]),
        dropped_NBL=jnp.stack([aux.dropped_BL for aux in layers]),
        seen=tuple(aux.seen for aux in layers),
    )


def map_routers(params: Params, function: Callable[[Params, int], Params]) -> Params:
    """Applies function(router params, n) to the router of each MoE layer n = 0, 1, ... in depth."""
    return map_parts(params, "router", function)


def map_parts(params: Params, part: str, function: Callable[[Params, int], Params]) -> Params:
    """Applies function(params of the part, n) to that part of each MoE layer n, in depth.

    `params` are the Transformer's; the layers of one place in the period are stacked there, so
    each is taken out, changed and put back. Works under jit.
    """
    layers = dict(params["layers"])
    places = sorted((name for name in layers if "moe" in layers[name]), key=lambda s: int(s[5:]))
    for p, name in enumerate(places):
        stacked = layers[name]["moe"][part]
        if not stacked:
            continue
        length = jax.tree.leaves(stacked)[0].shape[0]
        changed = [
            function(jax.tree.map(lambda a, i=i: a[i], stacked), i * len(places) + p)
            for i in range(length)
        ]
        whole = jax.tree.map(lambda *leaves: jnp.stack(leaves), *changed)
        layers[name] = {**layers[name], "moe": {**layers[name]["moe"], part: whole}}
    return {**params, "layers": layers}
